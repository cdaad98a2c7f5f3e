// Package pyverify holds the two verifiers of bundles against each other: package proof, and verifier/letterlock_verify.py, which was
// written from the pages in spec/ in another language. They share no code, so that a slip of the one shows as a difference: on bundles of
// every kind, good and broken, on histories that nobody planned, on bundles with a byte changed, and on the parts that bundles are made of.
//
// The tests install the one Python package that the verifier needs with pip, if it is missing, into the user's cache folder.
package pyverify
