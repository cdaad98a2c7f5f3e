//go:build race

package mls

// largestDrawn bounds the groups of the property test; the race detector makes them fifteen times slower.
const largestDrawn = 9
