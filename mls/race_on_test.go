//go:build race

package mls

// largestDrawn bounds the groups of the property test, mostSteps what happens to them; the race detector makes all of it
// fifteen times slower.
const (
	largestDrawn = 9
	mostSteps    = 6
)
