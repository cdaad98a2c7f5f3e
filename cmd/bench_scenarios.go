package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"letterlock/bench"
)

// benchRooms is what ` + "`bench rooms`" + ` prints as JSON. A half that was left out is nil.
type benchRooms struct {
	Crowd *bench.Rooms `json:"crowd,omitempty"` // one conversation of many
	Many  *bench.Rooms `json:"many,omitempty"`  // many conversations of few
}

func roomsScenario() *scenario {
	var (
		members, senders, crowdWindow, crowdRate int
		many, people, window, rate               int
		skew                                     float64
		shared                                   bench.RoomsOptions
	)
	return &scenario{
		name:  "rooms",
		short: "One conversation of a thousand, and ten thousand conversations",
		long: `First one conversation of many members, each of whom listens on a live connection: messages a second in,
deliveries a second out, and how long a message takes to one member and to the last of them. Then many
conversations of two, among people who are in many of them, with traffic as it is: the conversation of rank k
gets a share of 1/k^skew (Zipf).

A window counts the messages over all that have not reached their last listener yet. Latency at a fixed rate
counts from when a message was due.`,
		example: `  letterlock bench rooms
  letterlock bench rooms --members 0 --conversations 20000 --skew 1.5
  letterlock bench rooms --conversations 0 --members 200 --json`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&members, "members", 1000, "members of the one conversation; 0 leaves it out")
			f.IntVar(&senders, "senders", 10, "of them, who send in turn")
			f.IntVar(&crowdWindow, "crowd-window", 4, "messages under way in the one conversation")
			f.IntVar(&crowdRate, "crowd-rate", 5, "messages a second in the one conversation when latency is measured; 0 leaves it out")
			f.IntVar(&many, "conversations", 10000, "conversations of two; 0 leaves them out")
			f.IntVar(&people, "people", 200, "people who share those")
			f.Float64Var(&skew, "skew", 1.1, "of the traffic, above 1; 0: all conversations alike")
			f.IntVar(&window, "window", 400, "messages under way over all those conversations")
			f.IntVar(&rate, "rate", 50, "messages a second over all of them when latency is measured; 0 leaves it out")
			f.IntVar(&shared.Size, "size", 1024, "content of a message, bytes")
			f.DurationVar(&shared.Duration, "duration", 10*time.Second, "measured time of a run")
			f.DurationVar(&shared.Warmup, "warmup", time.Second, "time before throughput is measured")
		},
		quick: func() {
			members, many, people = 100, 500, 50
			shared.Duration, shared.Warmup = 2*time.Second, 200*time.Millisecond
		},
		check: func() error {
			switch {
			case members != 0 && (members < 2 || members > 1000):
				return fmt.Errorf("%w: --members are 2 to 1000, as many as a conversation may have", errUsage)
			case many < 0 || many > 0 && (people < 2 || many*2 > people*1000):
				return fmt.Errorf("%w: a connection has at most 1,024 subscriptions: give one of --people for each 500 of --conversations", errUsage)
			case skew != 0 && skew <= 1:
				return fmt.Errorf("%w: --skew is above 1, or 0", errUsage)
			case senders < 1 || crowdWindow < 1 || window < 1 || crowdWindow > 4096 || window > 4096 || rate < 0 || crowdRate < 0:
				return fmt.Errorf("%w: --senders must be positive, windows 1 to 4096, rates not negative", errUsage)
			case shared.Size < 8 || shared.Size > 64<<10:
				return fmt.Errorf("%w: --size is 8 to 65536", errUsage)
			}
			return nil
		},
		files: func() int { return max(members, people) + members },
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			r := &benchRooms{}
			o := shared
			o.Server, o.Progress = bed.process, bed.progress
			if members > 0 {
				o.People, o.Conversations, o.Members, o.Senders, o.Window, o.Rate = members, 1, members, senders, crowdWindow, crowdRate
				crowd, err := bench.MeasureRooms(ctx, bed.at, o)
				if err != nil {
					return nil, err
				}
				r.Crowd = &crowd
			}
			if many > 0 {
				o.People, o.Conversations, o.Members, o.Senders, o.Window, o.Rate, o.Skew = people, many, 2, 1, window, rate, skew
				m, err := bench.MeasureRooms(ctx, bed.at, o)
				if err != nil {
					return nil, err
				}
				r.Many = &m
			}
			return r, nil
		},
	}
}

func (r *benchRooms) figures() (all []figure) {
	for _, x := range []*bench.Rooms{r.Crowd, r.Many} {
		if x == nil {
			continue
		}
		name := fmt.Sprintf("%d conversations of %d", x.Conversations, x.Members)
		if x.Conversations == 1 {
			name = fmt.Sprintf("one conversation of %d", x.Members)
		}
		all = append(all,
			figure{name + ", set-up", fmt.Sprintf("%.1f s", x.SetupSeconds)},
			figure{fmt.Sprintf("  %d under way", x.Full.Window), fmt.Sprintf("%.0f messages/s in, %.0f deliveries/s out", x.Full.In, x.Full.Out)},
			figure{"  its delay", delayText(x.Full.Delays)},
			figure{"  CPU s/1000 deliveries", cpuPair(x.Full.CPU)})
		if p := x.Paced; p != nil {
			all = append(all, figure{fmt.Sprintf("  delay at %d/s", p.Rate), delayText(p.Delays)})
		}
	}
	return all
}

func delayText(d bench.Delays) string {
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms; to the last listener p50 %.2f ms, p99 %.2f ms", d.P50, d.P99, d.LastP50, d.LastP99)
}

type benchConnect struct{ bench.Connect }

func connectScenario() *scenario {
	var o bench.ConnectOptions
	return &scenario{
		name:  "connect",
		short: "A storm of devices that connect at once",
		long: `Devices that all come back at once, as after a restart: each opens a connection, signs in, upgrades it and
subscribes to a conversation. Time until the last is served, and of one from when it begins. Everybody signed up
before; the conversations have up to 1,000 members.`,
		example: `  letterlock bench connect
  letterlock bench connect --devices 1000 --at-once 100 --tls`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&o.Devices, "devices", 5000, "devices, each of a person of its own")
			f.IntVar(&o.AtOnce, "at-once", 0, "connections under way at a time; 0: all")
		},
		quick: func() { o.Devices = 500 },
		check: func() error { return checkDevices(o.Devices, o.AtOnce >= 0) },
		files: func() int { return o.Devices },
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			o.Server, o.Progress = bed.process, bed.progress
			r, err := bench.MeasureConnect(ctx, bed.at, o)
			return benchConnect{r}, err
		},
	}
}

// maxDevices is how many have ports on this machine: 254 addresses would do for more, memory will not.
const maxDevices = 200000

func checkDevices(n int, rest bool) error {
	if n < 2 || n > maxDevices || !rest {
		return fmt.Errorf("%w: --devices are 2 to %d; nothing else may be negative", errUsage, maxDevices)
	}
	return nil
}

func (r benchConnect) figures() []figure {
	all := []figure{
		{fmt.Sprintf("set-up of %d people", r.Devices), fmt.Sprintf("%.1f s", r.SetupSeconds)},
		{fmt.Sprintf("all %d served in", r.Devices-r.Failures), fmt.Sprintf("%.1f s, %.0f/s, %d at once", r.Seconds, r.PerSecond, r.AtOnce)},
		{"one takes", fmt.Sprintf("p50 %.0f ms, p99 %.0f ms, max %.0f ms", r.P50, r.P99, r.Max)},
		{"failures", fmt.Sprint(r.Failures)},
		{"CPU s/1000 connections", cpuPair(r.CPU)},
	}
	if r.Failures > 0 {
		all = append(all, figure{"the first failure", r.FirstFailure})
	}
	return all
}

type benchIdle struct{ bench.Idle }

func idleScenario() *scenario {
	var o bench.IdleOptions
	return &scenario{
		name:  "idle",
		short: "What devices cost that are connected and quiet",
		long: `Devices that are connected, subscribed and quiet: what of the server's resident memory each takes, read from
/proc before they come and when they have been quiet for a while. The server is restarted before, so that it
holds nothing of their signing up. Afterwards one message goes to each conversation, and every device must get
it.

Resident memory holds garbage too, which Go keeps for the next burst; what is in use are heap and stacks after
a collection that the command asks for. The kernel's share is what it holds for data in sockets, both ends; a socket's own few kilobytes are not in it.

Generator and server each need one open file for a device: where the limit is too low, the command says so.`,
		example: `  letterlock bench idle
  letterlock bench idle --devices 2000 --settle 5s --json`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&o.Devices, "devices", 15000, "devices, each of a person of its own")
			f.DurationVar(&o.Settle, "settle", time.Minute, "quiet time before memory is read")
		},
		quick: func() { o.Devices, o.Settle = 1000, 2*time.Second },
		check: func() error { return checkDevices(o.Devices, o.Settle >= 0) },
		files: func() int { return o.Devices },
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			o.Server, o.Progress = bed.process, bed.progress
			r, err := bench.MeasureIdle(ctx, bed.at, o)
			return benchIdle{r}, err
		},
	}
}

func (r benchIdle) figures() []figure {
	memory := func(m bench.Memory) string {
		if m.Resident == 0 {
			return "- (not our process)"
		}
		return fmt.Sprintf("%.1f MB resident, %.1f MB by share, %.1f MB in use", float64(m.Resident)/1e6, float64(m.Share)/1e6, float64(m.InUse)/1e6)
	}
	each := "-"
	if r.Before.Resident > 0 {
		each = fmt.Sprintf("%.1f kB resident, %.1f kB in use", r.PerDevice/1e3, r.InUsePer/1e3)
	}
	return []figure{
		{fmt.Sprintf("set-up of %d people", r.Devices), fmt.Sprintf("%.1f s, connected in %.1f s", r.SetupSeconds, r.ConnectSeconds)},
		{"server without connections", memory(r.Before)},
		{"with all", memory(r.After)},
		{"for a device", each},
		{"kernel's buffers for a device", fmt.Sprintf("%.1f kB, both ends", r.KernelPer/1e3)},
		{"devices that got a message afterwards", fmt.Sprintf("%d of %d, in %.1f s", r.Woken, r.Devices, r.WokenSeconds)},
	}
}

type benchCatchUp struct{ bench.CatchUp }

func catchUpScenario() *scenario {
	var o bench.CatchUpOptions
	return &scenario{
		name:  "catch-up",
		short: "How fast a device that was away has everything",
		long: `One person sends while the other's device is away; then that device fetches the whole conversation, once over
a new live connection and once by HTTP, page by page, and checks that nothing is missing. Megabytes are of the
messages as they were sent.`,
		example: `  letterlock bench catch-up
  letterlock bench catch-up --messages 10000 --json`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&o.Messages, "messages", 100000, "messages that the device missed")
			f.IntVar(&o.Size, "size", 1024, "content of a message, bytes")
		},
		quick: func() { o.Messages = 10000 },
		check: func() error {
			if o.Messages < 1 || o.Size < 8 || o.Size > 64<<10 {
				return fmt.Errorf("%w: --messages must be positive, --size 8 to 65536", errUsage)
			}
			return nil
		},
		files: func() int { return 8 },
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			o.Server, o.Progress = bed.process, bed.progress
			r, err := bench.MeasureCatchUp(ctx, bed.at, o)
			return benchCatchUp{r}, err
		},
	}
}

func (r benchCatchUp) figures() []figure {
	all := []figure{{fmt.Sprintf("%d messages stored in", r.Messages), fmt.Sprintf("%.1f s, %.0f/s", r.FillSeconds, float64(r.Messages)/r.FillSeconds)}}
	for _, way := range []struct {
		name string
		bench.Fetched
	}{{"live connection", r.Live}, {"HTTP pages", r.Pages}} {
		all = append(all, figure{way.name, fmt.Sprintf("%.2f s, %.0f messages/s, %.1f MB/s", way.Seconds, way.PerSecond, way.Megabytes)},
			figure{"  CPU s/1000 messages", cpuPair(way.CPU)})
	}
	return all
}

type benchGrowth struct{ bench.Growth }

func growthScenario() *scenario {
	var o bench.GrowthOptions
	var upto int
	return &scenario{
		name:  "growth",
		short: "Throughput and disk with more and more stored",
		long: `The store is filled to ten thousand messages, a hundred thousand and so on; after each filling throughput is
measured, which adds messages too, and what the store takes on disk: its data and, apart, the log that is
written ahead. At the end the server is stopped in order, and what both take then is divided by the messages.

Ten million messages of 1 KiB need some 16 GB of disk and half an hour: ask for them with --upto.`,
		example: `  letterlock bench growth
  letterlock bench growth --upto 10000000 --dir /var/tmp`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&upto, "upto", 1000000, "messages stored at the last measurement")
			f.IntVar(&o.Pairs, "pairs", 100, "pairs of people")
			f.IntVar(&o.Size, "size", 1024, "content of a message, bytes")
			f.IntVar(&o.Window, "window", 16, "messages in flight for each sender when throughput is measured")
			f.DurationVar(&o.Duration, "duration", 3*time.Second, "measured time of a run")
			f.DurationVar(&o.Warmup, "warmup", time.Second, "time before a run is measured")
		},
		quick: func() { upto, o.Duration, o.Warmup = 50000, time.Second, 200*time.Millisecond },
		check: func() error {
			if upto < 1 || upto > 1e9 || o.Pairs < 1 || o.Size < 8 || o.Size > 64<<10 || o.Window < 1 || o.Window > 256 {
				return fmt.Errorf("%w: --upto and --pairs must be positive, --size 8 to 65536, --window 1 to 256", errUsage)
			}
			return nil
		},
		files: func() int { return 4 * o.Pairs },
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			if bed.place != "" {
				if err := bench.RoomFor(bed.place, upto, o.Size); err != nil {
					return nil, err
				}
			}
			o.Server, o.Progress, o.Disk, o.Steps = bed.process, bed.progress, bed.disk, growthSteps(upto)
			r, err := bench.MeasureGrowth(ctx, bed.at, o)
			return benchGrowth{r}, err
		},
	}
}

// growthSteps are 10,000 and its multiples by ten below the last, and that.
func growthSteps(upto int) (steps []int) {
	for n := 10000; n < upto; n *= 10 {
		steps = append(steps, n)
	}
	return append(steps, upto)
}

func (r benchGrowth) figures() (all []figure) {
	disk := func(d bench.DiskUse) string {
		return fmt.Sprintf("%.1f MB data, %.1f MB log", float64(d.Data)/1e6, float64(d.Log)/1e6)
	}
	for _, s := range r.Steps {
		t := s.Throughput
		all = append(all,
			figure{fmt.Sprintf("with %d stored, window %d", s.Stored, r.Window), fmt.Sprintf("%.0f/s, p50 %.2f ms, p99 %.2f ms (filled at %.0f/s)", t.PerSecond, t.P50, t.P99, s.FillRate)})
		if s.Disk != nil {
			all = append(all, figure{"  on disk", disk(*s.Disk)})
		}
	}
	all = append(all, figure{"last to first", fmt.Sprintf("%.2f", r.LastToFirst)})
	if r.Closed != nil {
		all = append(all, figure{"on disk after the stop", disk(*r.Closed)},
			figure{"  for a message", fmt.Sprintf("%.0f bytes, of which %d were sent", r.PerMessage, r.CiphertextBytes)})
	}
	return all
}
