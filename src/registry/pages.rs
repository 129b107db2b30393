//! A growing list that never moves what it holds.
//!
//! A `Vec` that doubles needs the old and the new copy at once. A wasm memory never shrinks, so that peak would stay for
//! as long as the VM lives. Here a full page is left where it is.

/// A list of items in pages of `1 << BITS`; the first page grows as a `Vec` does, so a short list stays small.
#[derive(Debug)]
pub(crate) struct Pages<T, const BITS: u32> {
    pages: Vec<Vec<T>>,
}

impl<T, const BITS: u32> Default for Pages<T, BITS> {
    fn default() -> Self {
        Pages { pages: Vec::new() }
    }
}

impl<T, const BITS: u32> Pages<T, BITS> {
    const PAGE: usize = 1 << BITS;

    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        let Some(last) = self.pages.last() else {
            return 0;
        };
        u32::try_from((self.pages.len() - 1) * Self::PAGE + last.len()).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    pub(crate) fn get(&self, position: u32) -> Option<&T> {
        self.pages.get((position >> BITS) as usize)?.get(position as usize & (Self::PAGE - 1))
    }

    pub(crate) fn get_mut(&mut self, position: u32) -> Option<&mut T> {
        self.pages.get_mut((position >> BITS) as usize)?.get_mut(position as usize & (Self::PAGE - 1))
    }

    /// Adds an item and returns its position.
    pub(crate) fn push(&mut self, item: T) -> u32 {
        let position = self.len();
        self.page_with_room(1).push(item);
        position
    }

    pub(crate) fn shrink(&mut self) {
        if let Some(last) = self.pages.last_mut() {
            last.shrink_to_fit();
        }
    }

    #[inline(always)]
    fn page_with_room(&mut self, items: usize) -> &mut Vec<T> {
        let full = self.pages.last().is_none_or(|page| page.len() + items > Self::PAGE);
        if full {
            let page = if self.pages.is_empty() { Vec::new() } else { Vec::with_capacity(Self::PAGE) };
            self.pages.push(page);
        }
        let last = self.pages.len() - 1;
        // Never out of bounds: a page was pushed above if there was none.
        #[allow(clippy::indexing_slicing, reason = "a page was pushed above if there was none")]
        &mut self.pages[last]
    }
}

/// Short texts, one after the other, each behind a byte with its length.
#[derive(Debug, Default)]
pub(crate) struct Texts(Pages<u8, 16>);

impl Texts {
    /// Adds a text of at most 255 bytes, cutting what is longer, and returns where it stands.
    pub(crate) fn push(&mut self, text: &str) -> u32 {
        let bytes = text.as_bytes();
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        let bytes = bytes.get(..usize::from(length)).unwrap_or_default();
        let page = self.0.page_with_room(1 + bytes.len());
        let within = page.len();
        page.push(length);
        page.extend_from_slice(bytes);
        let pages = u32::try_from(self.0.pages.len() - 1).unwrap_or(u32::MAX);
        pages << 16 | u32::try_from(within).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    pub(crate) fn bytes(&self, position: u32) -> &[u8] {
        let page = self.0.pages.get((position >> 16) as usize).map(Vec::as_slice).unwrap_or_default();
        match page.get(position as usize & 0xffff..) {
            Some([length, rest @ ..]) => rest.get(..usize::from(*length)).unwrap_or_default(),
            _ => &[],
        }
    }

    pub(crate) fn text(&self, position: u32) -> &str {
        std::str::from_utf8(self.bytes(position)).unwrap_or_default()
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_item_again() {
        let mut pages = Pages::<u32, 4>::default();
        for item in 0..100 {
            assert_eq!(pages.push(item), item);
        }
        assert_eq!(pages.len(), 100);
        assert!((0..100).all(|item| pages.get(item) == Some(&item)));
        assert_eq!(pages.get(100), None);
    }

    #[test]
    fn finds_every_text_again_over_many_pages() {
        let mut texts = Texts::default();
        let all: Vec<String> = (0..10_000).map(|n| format!("{n}{}", "x".repeat(n % 250))).collect();
        let positions: Vec<u32> = all.iter().map(|text| texts.push(text)).collect();
        for (position, text) in positions.into_iter().zip(&all) {
            assert_eq!(texts.text(position), text);
        }
        let position = texts.push(&"y".repeat(300));
        assert_eq!(texts.text(position), "y".repeat(255));
    }
}
