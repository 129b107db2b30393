use super::*;

fn one(text: &str) -> Node {
    read(text).unwrap().into_iter().next().unwrap()
}

#[test]
fn knows_where_everything_stands() {
    let root = one("a:\n  - x\n  - b: [1, {c: d}]\n");
    assert_eq!(root.find("a[1].b[1].c").at, Position { line: 3, column: 16 });
    assert_eq!(root.find("a[0]").at, Position { line: 2, column: 5 });
    // The nearest that is there.
    assert_eq!(root.find("a[1].gone.deeper").at, root.find("a[1]").at);
    assert_eq!(root.find("").at, root.at);
}

#[test]
fn reads_scalars_as_kubectl_does() {
    let json = |text: &str| one(text).to_json();
    assert_eq!(
        json("[yes, off, ~, 12, 0x10, 1.5, 2027-01-31T00:00:00Z]"),
        r#"[true,false,null,12,16,1.5,"2027-01-31T00:00:00Z"]"#
    );
    assert_eq!(
        json("['yes', \"12\", !!str 12, 10.0.0.1, 10.0.0.0/8, .example]"),
        r#"["yes","12","12","10.0.0.1","10.0.0.0/8",".example"]"#
    );
    assert_eq!(json("{443: a}"), r#"{"443":"a"}"#);
    assert_eq!(
        json("[0443, 0899, 1_000, 0o17, 0b11, -0x1F, +7, 0, 0.5, 18446744073709551615, 1e3]"),
        "[291,899.0,1000,15,3,-31,7,0,0.5,18446744073709551615,1000.0]"
    );
    assert_eq!(json("[0x, 0xg, 1.2.3, 1-2, -a, 0b2, _1, .]"), r#"["0x","0xg","1.2.3","1-2","-a","0b2","_1","."]"#);
}

#[test]
fn keeps_keys_that_stand_there_twice() {
    assert_eq!(one("{a: 1, a: 2}").to_json(), r#"{"a":1,"a":2}"#);
    assert_eq!(one("{a: 1, a: 2}").get("a").unwrap().to_json(), "2");
}

#[test]
fn copies_aliases_and_merges() {
    let root = one("base: &b {x: 1, y: 2}\nlist: [*b]\nmine: {y: 3, <<: *b}\n");
    assert_eq!(root.to_json(), r#"{"base":{"x":1,"y":2},"list":[{"x":1,"y":2}],"mine":{"y":3,"x":1}}"#);
}

#[test]
fn own_fields_win_over_merged_ones_wherever_they_stand() {
    let root = one("[&b {x: 1, y: 2}, {<<: *b, y: 3}, {<<: [{y: 4}, *b], z: 5}, {<<: *b, y: 6, y: 7}]");
    let expected = r#"[{"x":1,"y":2},{"y":3,"x":1},{"z":5,"y":4,"x":1},{"y":6,"y":7,"x":1}]"#;
    assert_eq!(root.to_json(), expected);
    assert_eq!(read("<<: [a]").unwrap_err().to_string(), "`<<` merges objects only");
    assert_eq!(read("<<: a").unwrap_err().to_string(), "`<<` merges objects only");
}

#[test]
fn refuses_what_aliases_blow_up() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        let of = n - 1;
        text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{of}"); 10].join(", ")));
    }
    assert_eq!(read(&text).unwrap_err().to_string(), "anchors and aliases make more than 1000000 nodes");
    let anchored: String = (0..90).map(|n| format!("&a{n} [")).collect();
    let text = format!("{anchored}{}{}", vec!["x"; 20_000].join(","), "]".repeat(90));
    assert_eq!(read(&text).unwrap_err().to_string(), "anchors and aliases make more than 1000000 nodes");
    let deep = "[".repeat(150);
    assert_eq!(read(&deep).unwrap_err().to_string(), "nested deeper than 100");
}

#[test]
fn says_where_the_yaml_ends() {
    let invalid = read("a: 1\nb: [1,\n").unwrap_err();
    assert!(invalid.to_string().starts_with("not valid YAML: "), "{invalid}");
    assert!(invalid.at.line >= 2, "{:?}", invalid.at);
}

#[test]
fn reads_every_document_that_has_something_in_it() {
    let documents = read("---\na: 1\n---\n# nothing\n---\nb: 2\n").unwrap();
    assert_eq!(documents.iter().map(Node::to_json).collect::<Vec<_>>(), [r#"{"a":1}"#, r#"{"b":2}"#]);
}

#[test]
fn reads_the_paths_of_the_filters_errors() {
    assert_eq!(
        steps(r#"overrides[0].match.labels["odd key"].x"#),
        [
            Step::Key("overrides".into()),
            Step::Index(0),
            Step::Key("match".into()),
            Step::Key("labels".into()),
            Step::Key("odd key".into()),
            Step::Key("x".into())
        ]
    );
}
