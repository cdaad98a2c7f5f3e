//go:build !race

package mls

// largestDrawn bounds the groups of the property test.
const largestDrawn = 64
