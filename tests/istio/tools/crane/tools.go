//go:build tools

// Package tools pins crane, which scripts/build-istio-tools builds.
package tools

import _ "github.com/google/go-containerregistry/cmd/crane"
