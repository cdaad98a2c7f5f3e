package bench

import (
	"context"
	"slices"
	"sync"
	"time"
)

// ConnectOptions say how many devices come back at once.
type ConnectOptions struct {
	Devices  int
	AtOnce   int      // connections under way at a time; 0: all
	Server   *Process // nil: somebody else's
	Progress Progress
}

// Connect is what came of it. A device is served when its subscription is live.
type Connect struct {
	Devices      int     `json:"devices"`
	AtOnce       int     `json:"at_once"`
	SetupSeconds float64 `json:"setup_s"` // signing up, founding
	Seconds      float64 `json:"seconds"` // from the first that begins to the last that is served
	PerSecond    float64 `json:"per_second"`
	P50          float64 `json:"p50_ms"` // from when one begins
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	Failures     int     `json:"failures"`
	FirstFailure string  `json:"first_failure,omitempty"`
	CPU          CPU     `json:"cpu_of_connections"`
}

// MeasureConnect has people sign up and then come all at once: a new connection each, sign-in, upgrade, subscription.
func MeasureConnect(ctx context.Context, at Target, o ConnectOptions) (result Connect, err error) {
	setup := time.Now()
	people, home, err := newHouse(ctx, at, o.Devices, o.Progress)
	if err != nil {
		return result, err
	}
	if o.AtOnce == 0 {
		o.AtOnce = o.Devices
	}
	result = Connect{Devices: o.Devices, AtOnce: o.AtOnce, SetupSeconds: time.Since(setup).Seconds()}
	o.Progress.say("set up in %.1f s; the storm begins", result.SetupSeconds)

	lives, took := make([]*live, o.Devices), make([]int64, o.Devices)
	var failing sync.Mutex // guards result
	start, cost := time.Now(), startCost(o.Server)
	err = parallel(ctx, o.Devices, o.AtOnce, nil, func(ctx context.Context, i int) error {
		begin := time.Now()
		l, err := dial(ctx, at, people[i], sourceOf(at, i))
		if err == nil {
			lives[i] = l
			defer context.AfterFunc(ctx, l.close)()
			err = l.subscribe(home[i].id, home[i].seq, nil)
		}
		if err != nil {
			failing.Lock()
			defer failing.Unlock()
			if result.Failures++; result.Failures == 1 {
				result.FirstFailure = err.Error()
			}
			return nil
		}
		took[i] = int64(time.Since(begin))
		return nil
	})
	result.Seconds = time.Since(start).Seconds()
	result.CPU = cost.per(int64(o.Devices))
	for _, l := range lives {
		if l != nil {
			l.close()
		}
	}
	took = slices.DeleteFunc(took, func(t int64) bool { return t == 0 })
	slices.Sort(took)
	result.PerSecond = float64(len(took)) / result.Seconds
	result.P50, result.P99, result.Max = quantile(took, 0.50), quantile(took, 0.99), quantile(took, 1)
	return result, err
}
