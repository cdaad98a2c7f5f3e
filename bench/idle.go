package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"letterlock/api"
	"letterlock/chat"
)

// IdleOptions say how many devices do nothing.
type IdleOptions struct {
	Devices  int
	Settle   time.Duration // before memory is read: a server's memory goes back to the kernel slowly
	Server   *Process      // nil: somebody else's, whose memory is not known
	Progress Progress
}

// Idle is what came of it. Before is the server after a restart, without connections; After with all of them.
type Idle struct {
	Devices        int     `json:"devices"`
	SetupSeconds   float64 `json:"setup_s"`
	ConnectSeconds float64 `json:"connect_s"`
	Before         Memory  `json:"server_before_bytes"`
	After          Memory  `json:"server_after_bytes"`
	PerDevice      float64 `json:"server_bytes_per_device"`        // resident
	InUsePer       float64 `json:"server_in_use_bytes_per_device"` // of heap and stacks
	KernelPer      float64 `json:"kernel_buffer_bytes_per_device"` // both ends, data in sockets alone
	Woken          int     `json:"devices_that_got_a_message_afterwards"`
	WokenSeconds   float64 `json:"message_to_all_s"`
	CPU            CPU     `json:"cpu_of_devices_while_idle"` // over the settling time
}

// MeasureIdle connects the devices, lets them be quiet, and then sends one message to each of their conversations: all of them must get it.
func MeasureIdle(ctx context.Context, at Target, o IdleOptions) (result Idle, err error) {
	setup := time.Now()
	people, home, err := newHouse(ctx, at, o.Devices, o.Progress)
	if err != nil {
		return result, err
	}
	if o.Server != nil { // what signing up left in its memory is not the devices'
		if err := o.Server.Restart(ctx); err != nil {
			return result, err
		}
	}
	result = Idle{Devices: o.Devices, SetupSeconds: time.Since(setup).Seconds()}
	if result.Before, err = memoryOf(ctx, o.Server); err != nil {
		return result, err
	}
	buffers, connecting := socketBuffers(), time.Now()
	lives, err := quiet(ctx, at, people, home, o.Progress)
	defer func() {
		for _, l := range lives {
			if l != nil {
				l.close()
			}
		}
	}()
	if err != nil {
		return result, err
	}
	result.ConnectSeconds = time.Since(connecting).Seconds()
	o.Progress.say("connected in %.1f s; quiet for %s", result.ConnectSeconds, o.Settle)
	cost := startCost(o.Server)
	select {
	case <-time.After(o.Settle):
	case <-ctx.Done():
		return result, ctx.Err()
	}
	result.CPU = cost.per(int64(o.Devices))
	if result.After, err = memoryOf(ctx, o.Server); err != nil {
		return result, err
	}
	result.PerDevice = float64(result.After.Resident-result.Before.Resident) / float64(o.Devices)
	result.InUsePer = float64(result.After.InUse-result.Before.InUse) / float64(o.Devices)
	result.KernelPer = float64(socketBuffers()-buffers) / float64(o.Devices)
	waking := time.Now()
	result.Woken, err = wakeAll(ctx, lives, home)
	result.WokenSeconds = time.Since(waking).Seconds()
	return result, err
}

// quiet connects every device as the client does: told of all its conversations, subscribed to one.
func quiet(ctx context.Context, at Target, people []*Peer, home []*room, progress Progress) ([]*live, error) {
	lives := make([]*live, len(people))
	done := func(n int) { progress.step("connections", n, len(people)) }
	return lives, parallel(ctx, len(people), workers(), done, func(ctx context.Context, i int) (err error) {
		if lives[i], err = dial(ctx, at, people[i], sourceOf(at, i)); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, lives[i].close)()
		if err := lives[i].send(api.Frame{Type: api.FrameSubscribeAll}); err != nil {
			return err
		}
		err = lives[i].subscribe(home[i].id, home[i].seq, nil)
		lives[i].rest()
		return err
	})
}

// wakeTime is how long a quiet device may take to get a message.
const wakeTime = time.Minute

// wakeAll has the founder of each conversation say something over HTTP, and waits for it on every connection.
func wakeAll(ctx context.Context, lives []*live, home []*room) (woken int, err error) {
	for i, r := range home {
		if i > 0 && home[i-1] == r {
			continue
		}
		_, err := r.members[0].SendMessage(ctx, r.id, api.Message{Message: r.message(100, 0), DedupKey: newKey()})
		if err != nil {
			return 0, err
		}
	}
	var got atomic.Int64
	err = parallel(ctx, len(lives), workers(), nil, func(ctx context.Context, i int) error {
		l := lives[i]
		l.conn.SetReadDeadline(time.Now().Add(wakeTime))
		for has := false; !has; {
			err := l.receive(func(f *api.Frame) error {
				has = has || f.Type == api.FrameEntry && f.Entry.Conversation == home[i].id && f.Entry.Seq == home[i].seq+1
				return nil
			})
			if err != nil {
				return chat.Wrap(chat.Unavailable, err, "device %d of %d did not get its message", i+1, len(lives))
			}
		}
		l.rest()
		got.Add(1)
		return nil
	})
	return int(got.Load()), err
}

func memoryOf(ctx context.Context, p *Process) (Memory, error) {
	if p == nil {
		return Memory{}, nil
	}
	m, err := p.Memory(ctx)
	if err != nil {
		err = fmt.Errorf("bench: the server's memory: %w", err)
	}
	return m, err
}
