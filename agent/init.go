package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/mod/sumdb/note"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
	"letterlock/vault"
)

// The files of an agent's folder.
const (
	stateDir         = "state"                   // vault: everything that `run` needs
	rootDir          = "root"                    // vault: the root key alone; keep it offline once the agent is registered
	secretFile       = "secret"                  // of the local API, in hex
	addressFile      = "address"                 // where a running agent listens
	RegistrationFile = "registration.json"       // for the server's operator: letterlock admin partner add
	WellKnownFile    = "letterlock-partner.json" // for the partner's domain: /.well-known/letterlock-partner
)

const (
	// clockSlack is how far a certificate reaches back, for clocks that differ.
	clockSlack = 10 * time.Minute
	// agentCertFor is how long an agent key is certified beyond the agreement's end.
	agentCertFor = 24 * time.Hour

	bucketRoot = "root" // "key": seed of the root key
)

// DefaultRedirect is the local API's own callback. If the API listens on another port, that one takes its place: the server leaves the
// port of a loopback address open (RFC 8252 section 7.3).
const DefaultRedirect = "http://127.0.0.1:9090/callback"

// Options are what a partner offers in its agreement, and where its agent lives.
type Options struct {
	Server         string // public URL of the server
	Partner        string // partner id
	Name           string // for people
	Actions        chat.Actions
	ReportDays     uint64 // 0: no report
	PostsPerMinute uint64 // for each grant
	LinkBases      []string
	Interfaces     []string // labels that posts may declare
	Surfaces       []string
	Variants       []string
	Valid          time.Duration // of the agreement
	Number         uint64        // of the agreement: a newer one replaces an older one
	RedirectURI    string        // where people come back after their decision
}

// Env is what an agent takes from outside.
type Env struct {
	Now        func() time.Time
	Rand       io.Reader
	Passphrase func() ([]byte, error) // of the state; nil: its key lies in the folder
	Wait       time.Duration          // for another process that holds the folder
	Transport  http.RoundTripper      // to the server; nil: one of its own
}

// WellKnown is what the partner serves from its own domain: the contents of letterlock-partner.json.
type WellKnown struct {
	Partner string `json:"partner"`
	RootKey []byte `json:"root_key"` // Ed25519
}

// Init makes a partner's folder: root, agent and client key, the offer of an agreement, and the two files that others need. It asks
// the server once who it is and pins the answer. A folder that holds an agent already is refused.
func Init(ctx context.Context, home string, o Options, env Env) (*api.Registration, error) {
	server, err := introduce(ctx, o.Server, env)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	root, err := makeRoot(home, env)
	if err != nil {
		return nil, err
	}
	state, err := vault.Open(filepath.Join(home, stateDir), vaultOptions(env))
	if err != nil {
		return nil, err
	}
	defer state.Close()
	if _, err := loadConfig(state); err == nil {
		return nil, chat.Errorf(chat.Exists, "%s holds an agent already", home)
	} else if !chat.Is(err, chat.NotFound) {
		return nil, err
	}
	c, r, err := o.make(server, root, env)
	if err != nil {
		return nil, err
	}
	// Files first: if this ends half-way, the folder holds no agent yet and Init can be repeated.
	if err := writeFiles(home, o.Partner, r, root, env.Rand); err != nil {
		return nil, err
	}
	err = state.Update(func(tx *vault.Tx) error { return save(tx, bucketAgent, "config", c) })
	return r, err
}

// introduce asks a server who it is.
func introduce(ctx context.Context, url string, env Env) (api.Server, error) {
	public, err := publicClient(url, &http.Client{Transport: transport(env)}, env)
	if err != nil {
		return api.Server{}, err
	}
	s, err := public.Server(ctx)
	if err != nil {
		return s, err
	}
	if s.PublicURL != url {
		return s, chat.Errorf(chat.Invalid, "the server at %s says that its address is %s: use that one", url, s.PublicURL)
	}
	return s, checkServer(pin(s))
}

// publicClient makes the calls that need no token; its key is thrown away.
func publicClient(url string, h *http.Client, env Env) (*httpclient.Device, error) {
	_, key, err := ed25519.GenerateKey(env.Rand)
	if err != nil {
		return nil, err
	}
	return httpclient.NewDevice(httpclient.Options{BaseURL: url, HTTP: h, Now: env.Now, Rand: env.Rand}, key, api.SignIn{}, "")
}

func checkServer(s pinned) error {
	if err := chat.CheckHost(s.Host); err != nil {
		return err
	}
	if len(s.ServerKey) != ed25519.PublicKeySize {
		return chat.Errorf(chat.Invalid, "the server's key is malformed")
	}
	if _, err := proof.NewVRFKey(s.VRFKey); err != nil {
		return err
	}
	v, err := note.NewVerifier(s.LedgerVKey)
	if err != nil || v.Name() != proof.Origin(s.Host) {
		return chat.Errorf(chat.Invalid, "the server's ledger key is malformed")
	}
	return nil
}

// makeRoot draws the root key, or takes up the one of an Init that ended half-way.
func makeRoot(home string, env Env) (root rootKey, err error) {
	v, err := vault.Open(filepath.Join(home, rootDir), vaultOptions(env))
	if err != nil {
		return nil, err
	}
	defer v.Close()
	err = v.Update(func(tx *vault.Tx) error {
		stored, ok, err := tx.Get(bucketRoot, "key")
		if err != nil {
			return err
		}
		if ok {
			defer clear(stored)
			root, err = openKey[rootKey](stored)
			return err
		}
		if root, err = newKey[rootKey](env.Rand); err != nil {
			return err
		}
		s := seed(root)
		defer clear(s)
		return tx.Put(bucketRoot, "key", s)
	})
	return root, err
}

// make draws the agent's keys and signs what the root key has to sign.
func (o Options) make(server api.Server, root rootKey, env Env) (*config, *api.Registration, error) {
	agent, err := newKey[agentKey](env.Rand)
	if err != nil {
		return nil, nil, err
	}
	client, err := newKey[clientKey](env.Rand)
	if err != nil {
		return nil, nil, err
	}
	now := env.Now()
	from, to := now.Add(-clockSlack).UnixMilli(), now.Add(o.Valid).UnixMilli()
	agreement := grant.Agreement{Number: o.Number, Host: server.Host, Partner: o.Partner, Name: o.Name, Actions: o.Actions,
		ReportDays: o.ReportDays, PostsPerMinute: o.PostsPerMinute, LinkBases: o.LinkBases, Interfaces: o.Interfaces,
		Surfaces: o.Surfaces, Variants: o.Variants, NotBefore: from, NotAfter: to}
	offer, err := agreement.Offer(ed25519.PrivateKey(root))
	if err != nil {
		return nil, nil, err
	}
	cert, err := grant.Certify(ed25519.PrivateKey(root), grant.Cert{Partner: o.Partner, Purpose: grant.AgentPurpose,
		Key: [32]byte(public(agent)), NotBefore: from, NotAfter: now.Add(o.Valid + agentCertFor).UnixMilli()})
	if err != nil {
		return nil, nil, err
	}
	if err := checkRedirect(o.RedirectURI); err != nil {
		return nil, nil, err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{client.jwk()}})
	if err != nil {
		return nil, nil, err
	}
	c := &config{Version: stateVersion, Partner: o.Partner, Name: o.Name, RedirectURI: o.RedirectURI, LinkBases: o.LinkBases,
		AgentSeed: seed(agent), ClientSeed: seed(client), AgentCert: cert, Server: pin(server)}
	return c, &api.Registration{Partner: o.Partner, Name: o.Name, Offer: offer, AgentCert: cert, RedirectURIs: []string{o.RedirectURI}, ClientJWKS: keys}, nil
}

func writeFiles(home, partner string, r *api.Registration, root rootKey, rand io.Reader) error {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return err
	}
	wellKnown := WellKnown{Partner: partner, RootKey: public(root)}
	return errors.Join(
		writeJSONFile(filepath.Join(home, RegistrationFile), r),
		writeJSONFile(filepath.Join(home, WellKnownFile), wellKnown),
		writeFile(filepath.Join(home, secretFile), []byte(hex.EncodeToString(secret)+"\n"), 0o600),
	)
}

func writeJSONFile(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), 0o644)
}

// writeFile replaces a file whole.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func vaultOptions(env Env) vault.Options {
	return vault.Options{Passphrase: env.Passphrase, Wait: env.Wait}
}

func loadConfig(v *vault.Vault) (c config, err error) {
	err = v.View(func(tx *vault.Tx) error {
		var ok bool
		if c, ok, err = load[config](tx, bucketAgent, "config"); err == nil && !ok {
			err = chat.Errorf(chat.NotFound, "this folder holds no agent: run letterlock agent --home DIR init first")
		}
		return err
	})
	return c, err
}
