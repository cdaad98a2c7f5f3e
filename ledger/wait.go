package ledger

import (
	"sync"

	"letterlock/proof"
)

// waiters are those who wait for leaves. A new checkpoint wakes only those whose leaf this process has integrated: if it woke all, each of
// them would look for a leaf that is not there, at every batch.
type waiters struct {
	mu sync.Mutex
	of map[proof.Hash]*waiter
}

type waiter struct {
	all        *waiters
	n          int  // how many wait for this leaf
	integrated bool // the next checkpoint that is published may have it
	woken      chan struct{}
}

func (w *waiters) join(leaf proof.Hash) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[proof.Hash]*waiter{}
	}
	if w.of[leaf] == nil {
		w.of[leaf] = &waiter{all: w, woken: make(chan struct{})}
	}
	w.of[leaf].n++
	return w.of[leaf]
}

func (w *waiters) leave(leaf proof.Hash) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[leaf].n--; w.of[leaf].n == 0 {
		delete(w.of, leaf)
	}
}

// news is closed when a checkpoint was published that may have the leaf. Ask for it before looking.
func (w *waiter) news() <-chan struct{} {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return w.woken
}

// integrated notes leaves that a committed batch appended.
func (w *waiters) integrated(leaves []proof.Hash) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, leaf := range leaves {
		if of := w.of[leaf]; of != nil {
			of.integrated = true
		}
	}
}

// published wakes those whose leaves have been integrated.
func (w *waiters) published() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.of {
		if of.integrated {
			close(of.woken)
			of.woken = make(chan struct{})
		}
	}
}
