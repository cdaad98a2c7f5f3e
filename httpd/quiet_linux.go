package httpd

import (
	"sync"
	"syscall"
)

// quiet is where connections wait that have had nothing to read for a while, without a goroutine, whose stack is most of what a silent
// device costs: the kernel says which of them has something (epoll(7)). Go's own poller keeps waiting for them too, and does no harm.
var quiet struct {
	sync.Mutex
	epoll   int // 0: not made yet
	next    uint64
	waiting map[uint64]*carrier
}

// park has the carrier's reading begin anew when its socket has something; false: it cannot.
func park(l *carrier) bool {
	quiet.Lock()
	defer quiet.Unlock()
	if quiet.epoll == 0 {
		fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return false
		}
		quiet.epoll, quiet.waiting = fd, make(map[uint64]*carrier)
		go watchQuiet(fd)
	}
	operation := syscall.EPOLL_CTL_MOD
	if l.place == 0 {
		quiet.next++
		l.place, operation = quiet.next, syscall.EPOLL_CTL_ADD
	}
	// Once it has reported a socket the kernel leaves it alone until it is parked again.
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(l.place), Pad: int32(l.place >> 32)}
	err := l.socket.raw.Control(func(fd uintptr) {
		if ctlErr := syscall.EpollCtl(quiet.epoll, operation, int(fd), &ev); ctlErr == nil {
			quiet.waiting[l.place] = l
		}
	})
	return err == nil && quiet.waiting[l.place] == l
}

// unpark lets the carrier's reading find out that its socket was closed, of which the kernel says nothing.
func unpark(l *carrier) {
	quiet.Lock()
	defer quiet.Unlock()
	if quiet.waiting[l.place] == l {
		delete(quiet.waiting, l.place)
		go l.read()
	}
}

func watchQuiet(epoll int) {
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(epoll, events, -1)
		if err != nil && err != syscall.EINTR {
			panic("httpd: epoll_wait: " + err.Error()) // it cannot fail but by a mistake here
		}
		quiet.Lock()
		for _, ev := range events[:max(n, 0)] {
			place := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			if l := quiet.waiting[place]; l != nil {
				delete(quiet.waiting, place)
				go l.read()
			}
		}
		quiet.Unlock()
	}
}
