// Package mlsinterop runs our package mls against ts-mls 1.6.4, an implementation of RFC 9420 by others, in Node: each side
// creates groups, joins, sends, commits, proposes and removes among members of the other. The official vectors judge only
// what we receive; here others judge what we send.
//
// Where ts-mls 1.6.4 leaves RFC 9420, the tests go around it. It takes the external_senders extension for one sender instead
// of a list (section 12.1.8.1), so the server's Remove is not tried here. Its own commits of GroupContextExtensions have no
// path (section 17.4), and if another proposal forces one, encrypt it under the old extensions (section 12.4.1), which not
// even ts-mls opens; so only we replace extensions.
//
// The tests install the pinned npm packages with npm ci if they are missing.
package mlsinterop
