// Package bench is the load that a server is measured and tormented with: pairs of people whose devices are real clients, over real
// sockets, with a server in a process of its own. `letterlock bench` prints what it measures; the tests that kill servers use its
// pairs.
//
// Neighbours: api/httpclient makes the connections, mls the groups. Messages have the envelope of an MLS message and random bytes for a
// ciphertext, since a server cannot tell; so a figure is about the server and not about sealing. It judges nothing: what is fast
// enough is for the reader.
package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// Peer is one person with one device.
type Peer struct {
	*httpclient.Device
	Caller   api.Caller
	at       Target
	identity []byte
	key      ed25519.PrivateKey
}

// Pair is two people in one conversation, of which A sends and B listens.
type Pair struct {
	A, B         *Peer
	Conversation chat.ConversationID
	Epoch        uint64 // that messages are made for

	group   *mls.Group // A's
	pending *mls.Pending
	key     []byte          // of the pending commit
	welcome []byte          // that B may join by,
	joining *mls.KeyPackage // and with what
}

// overhead is what MLS adds to a message's content: sender data, framing with its signature, tags. Approximately: it varies by bytes.
const (
	senderDataSize = 28
	sealingSize    = 144
)

// NewPair signs up two people with random handles and makes their conversation.
func NewPair(ctx context.Context, at Target) (*Pair, error) {
	a, err := newPeer(ctx, at)
	if err != nil {
		return nil, err
	}
	b, err := newPeer(ctx, at)
	if err != nil {
		return nil, err
	}
	p := &Pair{A: a, B: b, Conversation: chat.NewConversationID()}
	return p, p.found(ctx)
}

func newPeer(ctx context.Context, at Target) (*Peer, error) {
	device, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	if err != nil {
		return nil, err
	}
	name := make([]byte, 8)
	rand.Read(name)
	p := &Peer{at: at, key: device.Private(), Caller: api.Caller{Account: chat.NewAccountID(), Handle: "b" + hex.EncodeToString(name), Device: chat.NewDeviceID()}}
	p.Device, err = httpclient.NewDevice(at.options(), p.key, api.SignIn{Account: p.Caller.Account, Device: p.Caller.Device}, "")
	if err != nil {
		return nil, err
	}
	who, err := p.Server(ctx)
	if err != nil {
		return nil, err
	}
	p.identity = []byte(chat.DeviceURI(who.Host, p.Caller.Handle, p.Caller.Device))
	entry, err := keychain.Create(keychain.Creation{Account: p.Caller.Account, Host: who.Host, Handle: p.Caller.Handle, Device: p.Caller.Device,
		Name: "bench", At: time.Now()}, device, recovery)
	if err != nil {
		return nil, err
	}
	_, err = p.SignUp(ctx, api.SignUp{Entry: entry})
	return p, err
}

// found makes the conversation and adds B, who has a KeyPackage for it alone.
func (p *Pair) found(ctx context.Context) error {
	g, err := p.A.found(ctx, p.Conversation)
	if err != nil {
		return err
	}
	if p.joining, err = p.B.keyPackage(); err != nil {
		return err
	}
	pending, err := g.Commit(mls.CommitOptions{Add: [][]byte{p.joining.Public}, Now: time.Now(), Rand: rand.Reader})
	if err != nil {
		return err
	}
	p.group, p.pending, p.key, p.welcome = g, pending, newKey(), pending.Welcome
	return p.Commit(ctx)
}

// found makes a conversation with nobody else in it.
func (p *Peer) found(ctx context.Context, id chat.ConversationID) (*mls.Group, error) {
	who, err := p.Server(ctx)
	if err != nil {
		return nil, err
	}
	thread := grant.NewThread(who.Host, "")
	g, err := mls.Create(mls.CreateOptions{GroupID: id[:], Identity: p.identity, Signer: p.key, Now: time.Now(), Rand: rand.Reader,
		SupportedExtensions: []uint16{roster.ExtLetterlock}, Extensions: roster.Extensions{
			{Type: roster.ExtLetterlock, Data: thread.Marshal()},
			roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: who.ServerKey, Credential: roster.BasicCredential([]byte("mimi://" + who.Host))}),
		}})
	if err != nil {
		return nil, err
	}
	info, err := g.GroupInfo()
	if err != nil {
		return nil, err
	}
	_, err = p.Found(ctx, api.NewConversation{GroupInfo: info})
	return g, err
}

// keyPackage is one that the server never sees but in the commit that adds its leaf.
func (p *Peer) keyPackage() (*mls.KeyPackage, error) {
	return mls.NewKeyPackage(mls.KeyPackageOptions{Identity: p.identity, Signer: p.key, SupportedExtensions: []uint16{roster.ExtLetterlock},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), Rand: rand.Reader})
}

// Commit has A end the epoch. One whose outcome was not learned is sent again as it was: the server answers it as the first time.
func (p *Pair) Commit(ctx context.Context) (err error) {
	if p.pending == nil {
		if p.pending, err = p.group.Commit(mls.CommitOptions{Now: time.Now(), Rand: rand.Reader}); err != nil {
			return err
		}
		p.key = newKey()
	}
	taken, err := p.A.Commit(ctx, p.Conversation, api.Commit{Commit: p.pending.Commit, Welcome: p.pending.Welcome, DedupKey: p.key})
	if err != nil {
		return err
	}
	p.group, err = p.pending.Merge()
	p.pending, p.Epoch = nil, taken.Epoch
	return err
}

func newKey() []byte { t := chat.NewToken(); return t[:16] }

// Message makes a message of the conversation's epoch as large as one with size bytes of content. It ends with a stamp.
func (p *Pair) Message(size int, stamp int64) []byte {
	return message(p.Conversation, p.Epoch, size, stamp)
}

func message(id chat.ConversationID, epoch uint64, size int, stamp int64) []byte {
	random := make([]byte, senderDataSize+size+sealingSize)
	rand.Read(random)
	binary.BigEndian.PutUint64(random[len(random)-8:], uint64(stamp))
	return roster.Marshal(&roster.Message{WireFormat: roster.WirePrivateMessage, Private: &roster.PrivateMessage{GroupID: id[:], Epoch: epoch,
		ContentType: roster.ContentApplication, EncryptedSenderData: random[:senderDataSize], Ciphertext: random[senderDataSize:]}})
}

// Stamp reads what Message wrote at the end.
func Stamp(message []byte) (int64, error) {
	if len(message) < 8 {
		return 0, fmt.Errorf("bench: message of %d bytes", len(message))
	}
	return int64(binary.BigEndian.Uint64(message[len(message)-8:])), nil
}

// NewPairs makes n pairs, a few at a time.
func NewPairs(ctx context.Context, at Target, n int, progress Progress) ([]*Pair, error) {
	return makeAll(ctx, "pairs", n, progress, func(ctx context.Context, _ int) (*Pair, error) { return NewPair(ctx, at) })
}

// Unfinished says that a commit was sent and its outcome was not learned.
func (p *Pair) Unfinished() bool { return p.pending != nil }
