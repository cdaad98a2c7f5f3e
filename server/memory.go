package server

import (
	"context"
	"runtime/debug"
	gometrics "runtime/metrics"
	"time"
)

const (
	memoryEvery = 20 * time.Second // how often the memory is looked at
	memoryQuiet = 64 << 20         // who allocates less in that time is quiet, bytes
	memoryIdle  = 32 << 20         // unused memory that is worth giving back, bytes
)

// giveMemoryBack returns unused memory to the system while the server is quiet. Go keeps as much again as is in use, ready for the
// next rush; with many thousand devices connected that doubles what a silent one costs.
func giveMemoryBack(ctx context.Context) {
	sample := []gometrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	read := func(i int) int64 { return int64(sample[i].Value.Uint64()) }
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	allocated, given := int64(0), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		gometrics.Read(sample)
		held := read(1) - read(2)
		quiet := read(0)-allocated < memoryQuiet
		allocated = read(0)
		// What was given back at the last time and is held again is what the server needs.
		if unused := held - read(3) - read(4); quiet && unused > memoryIdle && held > given+memoryIdle {
			debug.FreeOSMemory()
			gometrics.Read(sample)
			given = read(1) - read(2)
		}
	}
}
