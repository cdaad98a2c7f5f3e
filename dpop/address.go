package dpop

import (
	"net/url"
	"strings"
)

// maxURL is the longest htu that is parsed, in bytes.
const maxURL = 2048

// sameAddress compares two htu values after the normalisation of RFC 3986 sections 6.2.2.1 and 6.2.3 that RFC 9449 section 4.3
// asks for: case of scheme, host and percent-encoding, the scheme's own port, the empty path. Query and fragment do not count.
func sameAddress(a, b string) bool {
	if a == b && !strings.ContainsAny(a, "?#") {
		return true
	}
	na, ok := normal(a)
	if !ok {
		return false
	}
	nb, ok := normal(b)
	return ok && na == nb
}

func normal(s string) (string, bool) {
	if len(s) > maxURL {
		return "", false
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.User != nil || u.Host == "" {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	default:
		return "", false
	}
	path := upperEscapes(u.EscapedPath())
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, true
}

// upperEscapes writes the hex digits of each percent-encoding in upper case.
func upperEscapes(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	b := []byte(path)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToUpper(string(b[i+1:i+3])))
		}
	}
	return string(b)
}
