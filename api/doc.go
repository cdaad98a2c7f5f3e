// Package api is the contract between the two halves of letterlock: the types that cross the wire and the calls that exchange
// them, as Go interfaces. Package httpd serves these calls over HTTP, package api/httpclient makes them; device and agent know only
// the interfaces.
//
// Bodies are JSON, byte strings in standard base64, ids in hex, times in milliseconds since 1970. Errors are *chat.Error with the
// kind that the server gave. The package imports no net/http and holds no logic.
package api
