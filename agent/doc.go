// Package agent is the partner's side: it holds the keys that people's grants name, and gives the partner's own backend the same
// things in plaintext on localhost. `letterlock agent` runs it; it can also be used as a Go package.
//
// Init makes a partner's folder. Open takes it up. Then Authorize asks a person (OAuth 2.1, Redeem takes the answer), Send puts
// letters through a thread's slot, TakeBack takes them back, Changes reads a thread with a leaf of its own, and End gives a grant
// up. Handler is the local JSON API. State lies in a vault, encrypted; its values are described in spec/agent.md.
//
// Neighbours: slot seals, mls reads, mimi writes and folds content, grant judges commits, proof checks the ledger, api/httpclient
// carries the calls. The package knows no server package.
//
// It refuses: a slot that the grant's devices did not announce, an epoch older than one it saw, a grant that does not name its own
// key, a commit that package grant calls invalid, reading on when a promised record is not in the ledger within a minute, and to
// countersign accesses that it did not have. When a grant ends it erases what it held under it.
package agent
