//go:build !race

package mls

// largestDrawn bounds the groups of the property test, mostSteps what happens to them.
const (
	largestDrawn = 64
	mostSteps    = 18
)
