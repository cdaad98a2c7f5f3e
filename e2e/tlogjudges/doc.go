// Package tlogjudges lets others' code judge our tile log: Tessera's fsck and torchwood's client read a running server over HTTP and must
// accept all of it. It is a module of its own, so that letterlock does not depend on what the judges depend on; it knows letterlock only
// as a program that it builds and starts. Run it with: go -C e2e/tlogjudges test
package tlogjudges
