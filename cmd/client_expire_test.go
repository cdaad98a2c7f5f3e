package cmd

import (
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/device"
)

func TestLifetimes(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "10m": 10 * time.Minute, "1h": time.Hour, "90m": 90 * time.Minute, "7d": 7 * 24 * time.Hour,
		"2w": 14 * 24 * time.Hour, "365d": 365 * 24 * time.Hour, "1h30m": 90 * time.Minute,
		"": 0, "d": 0, "1": 0, "x": 0, "0s": 0, "-1h": 0, "-1d": 0, "366d": 0, "1.5d": 0, "70000d": 0, "999ms": 0, "9999999999h": 0, "1d1h": 0,
	} {
		d, err := parseLifetime(s)
		if (err == nil) != (want != 0) || err == nil && d != want {
			t.Errorf("%q: %v, %v; want %v", s, d, err, want)
		}
		if err != nil || s == "1h30m" {
			continue
		}
		if again, err := parseLifetime(lifetimeText(d)); err != nil || again != d {
			t.Errorf("%q is shown as %q, which reads as %v, %v", s, lifetimeText(d), again, err)
		}
	}
}

// TestFollowingWhileLinesDisappear: what is new is shown once, also when older lines are gone.
func TestFollowingWhileLinesDisappear(t *testing.T) {
	message := func(n byte, seq uint64) device.Line {
		return device.Line{Seq: seq, Kind: "message", ID: chat.MessageID{1, n}}
	}
	event := device.Line{Seq: 3, Kind: "event", Text: "x"}
	r := &reading{}
	if got := r.fresh([]device.Line{message(1, 1), message(2, 2), event, message(3, 0)}); len(got) != 4 {
		t.Fatalf("at first: %+v", got)
	}
	got := r.fresh([]device.Line{message(2, 2), event, message(3, 4), message(4, 5)}) // 1 has gone, 3 was sent
	if len(got) != 1 || got[0].ID != message(4, 5).ID {
		t.Fatalf("later: %+v", got)
	}
}
