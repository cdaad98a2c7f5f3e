package agent

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
	"letterlock/vault"
)

// Agent is a partner's agent with its folder open. It is safe for concurrent use; calls under one grant wait for each other.
type Agent struct {
	config config
	agent  agentKey
	vault  *vault.Vault
	now    func() time.Time
	rand   io.Reader
	log    *slog.Logger

	redirect string // where people come back from now on; set before the agent is used

	http   *http.Client
	oauth  *oauthClient
	public *httpclient.Device // calls without a token: the log

	verifier note.Verifier // of the ledger
	vrf      proof.VRFKey
	ledger   *proof.Log

	mu     sync.Mutex
	grants map[chat.GrantID]*desk
}

// Open takes up the folder that Init made. One process at a time.
func Open(home string, env Env, log *slog.Logger) (*Agent, error) {
	v, err := vault.Open(filepath.Join(home, stateDir), vaultOptions(env))
	if err != nil {
		return nil, err
	}
	a, err := open(v, env, log)
	if err != nil {
		v.Close()
		return nil, err
	}
	return a, nil
}

func open(v *vault.Vault, env Env, log *slog.Logger) (*Agent, error) {
	c, err := loadConfig(v)
	if err != nil {
		return nil, err
	}
	a := &Agent{config: c, vault: v, now: env.Now, rand: env.Rand, log: log, redirect: c.RedirectURI, http: &http.Client{Transport: transport(env)}, grants: map[chat.GrantID]*desk{}}
	if a.agent, err = openKey[agentKey](c.AgentSeed); err != nil {
		return nil, err
	}
	client, err := openKey[clientKey](c.ClientSeed)
	if err != nil {
		return nil, err
	}
	if err := checkServer(c.Server); err != nil {
		return nil, err
	}
	a.oauth = newOAuthClient(c, client, a.http, a.now, a.rand)
	if a.public, err = publicClient(c.Server.URL, a.http, env); err != nil {
		return nil, err
	}
	if a.verifier, err = note.NewVerifier(c.Server.LedgerVKey); err != nil {
		return nil, err
	}
	if a.vrf, err = proof.NewVRFKey(c.Server.VRFKey); err != nil {
		return nil, err
	}
	a.ledger, err = a.openLedger()
	return a, err
}

// transport keeps enough connections for many grants, since each call goes to the same server.
func transport(env Env) http.RoundTripper {
	if env.Transport != nil {
		return env.Transport
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	return t
}

// Partner is the partner's id.
func (a *Agent) Partner() string { return a.config.Partner }

// Server is the address of the server that this agent pinned.
func (a *Agent) Server() string { return a.config.Server.URL }

// Close writes everything and lets the folder go.
func (a *Agent) Close() error {
	a.http.CloseIdleConnections()
	return a.vault.Close()
}

func (a *Agent) millis() int64 { return a.now().UnixMilli() }

// desk is where one grant is worked on: one call at a time.
type desk struct {
	mu     sync.Mutex // guards what follows, and the grant's values in the vault
	loaded bool
	held   held
	key    grantKey
	inbox  *httpclient.Agent
	reader *reader // of a reading grant, once joined; nil: not loaded

	tokenMu sync.Mutex // guards tokens; taken while mu is held, never the other way round
	tokens  tokens
	gone    bool // the server ended the tokens
}

// at finds a grant's desk and locks it; the caller unlocks it. A grant that is over is refused with the reason.
func (a *Agent) at(id chat.GrantID) (*desk, error) {
	d, err := a.lock(id)
	if err != nil {
		return nil, err
	}
	switch d.held.Phase {
	case Live, Stopped:
		return d, nil
	case Asked:
		err = chat.Errorf(chat.Forbidden, "this grant was asked for and not yet given")
	default:
		err = errEnded(d.held)
	}
	d.mu.Unlock()
	return nil, err
}

func errEnded(h held) error {
	return chat.Errorf(chat.Gone, "this grant is over (%s); everything held under it was erased", h.Detail)
}

// lock finds a grant's desk in whatever phase and locks it.
func (a *Agent) lock(id chat.GrantID) (*desk, error) {
	a.mu.Lock()
	d, ok := a.grants[id]
	if !ok {
		d = &desk{}
		a.grants[id] = d
	}
	a.mu.Unlock()
	d.mu.Lock()
	if d.loaded {
		return d, nil
	}
	err := a.loadDesk(d, id)
	if err != nil {
		d.mu.Unlock()
		a.mu.Lock()
		if chat.Is(err, chat.NotFound) && a.grants[id] == d {
			delete(a.grants, id)
		}
		a.mu.Unlock()
		return nil, err
	}
	return d, nil
}

func (a *Agent) loadDesk(d *desk, id chat.GrantID) error {
	err := a.vault.View(func(tx *vault.Tx) error {
		h, ok, err := load[held](tx, bucketGrants, id.String())
		if err != nil {
			return err
		}
		if !ok {
			return chat.Errorf(chat.NotFound, "this agent holds no such grant")
		}
		d.held = h
		d.tokens, _, err = load[tokens](tx, bucketTokens, id.String())
		return err
	})
	if err != nil {
		return err
	}
	if d.held.Phase != Ended {
		if d.key, err = openKey[grantKey](d.held.Seed); err != nil {
			return err
		}
		o := httpclient.Options{BaseURL: a.config.Server.URL, HTTP: a.http, Now: a.now, Rand: a.rand}
		if d.inbox, err = httpclient.NewAgent(o, ed25519.PrivateKey(d.key), &tokenSource{a, d}); err != nil {
			return err
		}
	}
	d.loaded = true
	return nil
}

// put stores the grant's state.
func (a *Agent) put(h held) error {
	return a.vault.Update(func(tx *vault.Tx) error { return save(tx, bucketGrants, h.Grant.String(), h) })
}

// Grant is how a grant stands, for the partner's backend.
type Grant struct {
	ID           chat.GrantID        `json:"id"`
	For          string              `json:"for,omitempty"`
	Phase        Phase               `json:"state"`
	Detail       string              `json:"detail,omitempty"`
	Actions      []string            `json:"actions"`
	Conversation chat.ConversationID `json:"conversation"`
	Handle       string              `json:"handle,omitempty"` // whose grant it is
	Friend       string              `json:"friend,omitempty"` // opaque handle of the other person, good for this partner and person alone
	Expiry       int64               `json:"expires_at"`       // ms
}

func (h held) view() Grant {
	return Grant{ID: h.Grant, For: h.For, Phase: h.Phase, Detail: h.Detail, Actions: h.Actions.Names(), Conversation: h.Conversation,
		Handle: h.Handle, Friend: h.Friend, Expiry: h.Expiry}
}

// Grants lists the grants that were given, ended ones too, in the order of their ids, after the one given.
func (a *Agent) Grants(after string, limit int) (list []Grant, err error) {
	err = a.vault.View(func(tx *vault.Tx) error {
		for len(list) < limit {
			names, err := tx.List(bucketGrants, after, limit)
			if err != nil || len(names) == 0 {
				return err
			}
			for _, name := range names {
				h, _, err := load[held](tx, bucketGrants, name)
				if err != nil {
					return err
				}
				if h.Phase != Asked && len(list) < limit {
					list = append(list, h.view())
				}
				after = name
			}
		}
		return nil
	})
	return list, err
}

// Look tells how one grant stands by what is known here, without asking the server.
func (a *Agent) Look(id chat.GrantID) (Grant, error) {
	d, err := a.lock(id)
	if err != nil {
		return Grant{}, err
	}
	defer d.mu.Unlock()
	return d.held.view(), nil
}

// Check asks the server how a grant stands. A grant that is over is erased and reported as such.
func (a *Agent) Check(ctx context.Context, id chat.GrantID) (Grant, error) {
	d, err := a.lock(id)
	if err != nil {
		return Grant{}, err
	}
	defer d.mu.Unlock()
	if d.held.Phase != Live && d.held.Phase != Stopped {
		return d.held.view(), nil
	}
	g, err := d.inbox.Grant(ctx)
	if err := a.judge(ctx, d, err); err != nil && !chat.Is(err, chat.Gone) {
		return Grant{}, err
	}
	if d.held.Phase == Ended {
		return d.held.view(), nil
	}
	if g.State == string(grant.Ended) {
		if err := a.over(ctx, d, "ended by the person or the server"); !chat.Is(err, chat.Gone) {
			return Grant{}, err
		}
		return d.held.view(), nil
	}
	err = a.narrow(d, g.Actions)
	return d.held.view(), err
}
