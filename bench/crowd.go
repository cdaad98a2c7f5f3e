package bench

import (
	"context"
	"crypto/rand"
	"net"
	"net/url"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
)

// room is a conversation of many. The first member founded it.
type room struct {
	id      chat.ConversationID
	epoch   uint64
	seq     uint64 // of the commit that brought the members in: the last entry there was
	members []*Peer
}

// maxRoom is how many leaves a conversation may have (spec/delivery.md).
const maxRoom = 1000

// newRoom founds a conversation and adds everybody in one commit.
func newRoom(ctx context.Context, members []*Peer) (*room, error) {
	r := &room{id: chat.NewConversationID(), members: members}
	first := members[0]
	g, err := first.found(ctx, r.id)
	if err != nil || len(members) == 1 {
		return r, err
	}
	o := mls.CommitOptions{Now: time.Now(), Rand: rand.Reader}
	for _, p := range members[1:] {
		kp, err := p.keyPackage()
		if err != nil {
			return nil, err
		}
		o.Add = append(o.Add, kp.Public)
	}
	pending, err := g.Commit(o)
	if err != nil {
		return nil, err
	}
	taken, err := first.Commit(ctx, r.id, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	r.epoch, r.seq = taken.Epoch, taken.Seq
	return r, err
}

func (r *room) message(size int, stamp int64) []byte { return message(r.id, r.epoch, size, stamp) }

// newRooms makes conversations, a few at a time. pick says who is in which.
func newRooms(ctx context.Context, n int, progress Progress, pick func(i int) []*Peer) ([]*room, error) {
	return makeAll(ctx, "conversations", n, progress, func(ctx context.Context, i int) (*room, error) { return newRoom(ctx, pick(i)) })
}

// newHouse signs up so many people and divides them among as few conversations as hold them: everybody is in exactly one.
func newHouse(ctx context.Context, at Target, n int, progress Progress) (people []*Peer, home []*room, err error) {
	if people, err = NewPeers(ctx, at, n, progress); err != nil {
		return nil, nil, err
	}
	rooms := (n + maxRoom - 1) / maxRoom
	size := (n + rooms - 1) / rooms
	made, err := newRooms(ctx, rooms, progress, func(i int) []*Peer { return people[i*size : min((i+1)*size, n)] })
	home = make([]*room, n)
	for i := range home {
		home[i] = made[i/size]
	}
	return people, home, err
}

// perAddress is how many connections come from one address of this machine. The kernel's usual range has 28,232 ports for each.
const perAddress = 20000

// sourceOf spreads connections to loopback over its addresses, since each has a port for so many only. Elsewhere the kernel chooses.
func sourceOf(at Target, i int) *net.TCPAddr {
	u, err := url.Parse(at.URL)
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()).To4(); ip == nil || !ip.IsLoopback() || i < perAddress {
		return nil
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i/perAddress))}
}

// cost is the processor time of both sides since a moment.
type cost struct {
	process        *Process
	server, myself time.Duration
}

func startCost(server *Process) cost { return cost{server, cpuOf(server), ownCPU()} }

func cpuOf(server *Process) time.Duration { return (&SendOptions{Server: server}).serverCPU() }

// per is in seconds for each thousand of n things; the server's is 0 where it is not our process.
func (c cost) per(n int64) CPU {
	if n == 0 {
		return CPU{}
	}
	thousands := float64(n) / 1000
	return CPU{Server: (cpuOf(c.process) - c.server).Seconds() / thousands, Generator: (ownCPU() - c.myself).Seconds() / thousands}
}

// CPU is processor time in seconds for a thousand of what was counted.
type CPU struct {
	Server    float64 `json:"server_s_per_1000,omitempty"` // 0: not our process
	Generator float64 `json:"generator_s_per_1000"`
}
