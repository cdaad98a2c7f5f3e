//go:build !linux

package httpd

// park cannot: a quiet connection keeps its goroutine here.
func park(*carrier) bool { return false }

func unpark(*carrier) {}
