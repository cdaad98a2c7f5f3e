package httpd

import "time"

// SetQuietTime changes when a connection is put aside, until restore is called.
func SetQuietTime(d time.Duration) (restore func()) {
	before := quietTime
	quietTime = d
	return func() { quietTime = before }
}

// Parked counts the connections that are put aside.
func Parked() int {
	quiet.Lock()
	defer quiet.Unlock()
	return len(quiet.waiting)
}
