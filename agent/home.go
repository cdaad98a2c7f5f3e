package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"letterlock/chat"
)

const maxSecret = 1 << 10

// ReadSecret reads the secret of the local API from a file of its own, or from the agent's folder if path is empty. A file that others
// can read, or a secret that can be guessed, is refused.
func ReadSecret(home, path string) (string, error) {
	if path == "" {
		path = filepath.Join(home, secretFile)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", chat.Errorf(chat.NotFound, "%s holds no agent: run letterlock agent --home %s init first", home, home)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", chat.Errorf(chat.Forbidden, "%s can be read by others: run chmod 600 %s", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if len(secret) < 32 || len(b) > maxSecret {
		return "", chat.Errorf(chat.Invalid, "%s must hold a secret of 32 to %d characters", path, maxSecret)
	}
	return secret, nil
}

// Announce notes where the agent listens, for commands on the same folder, until the function that it returns is called.
func Announce(home string, l net.Listener) (func(), error) {
	path := filepath.Join(home, addressFile)
	if err := writeFile(path, []byte(AddressOf(l)+"\n"), 0o600); err != nil {
		return nil, err
	}
	return func() { os.Remove(path) }, nil
}

// Local calls a running agent by its folder.
type Local struct {
	base, secret string
	http         *http.Client
}

const localTime = 2 * time.Minute

// Dial finds the agent that runs on a folder.
func Dial(home, secretPath string) (*Local, error) {
	secret, err := ReadSecret(home, secretPath)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(home, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notRunning(home)
	}
	if err != nil {
		return nil, err
	}
	l := &Local{base: strings.TrimSpace(string(b)), secret: secret, http: &http.Client{Timeout: localTime}}
	if path, ok := strings.CutPrefix(l.base, unixPrefix); ok {
		l.base = "http://agent"
		l.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}
	}
	return l, nil
}

func notRunning(home string) error {
	return chat.Errorf(chat.Unavailable, "no agent runs on %s: start letterlock agent --home %s run", home, home)
}

// Do makes a call of the local API: JSON in, JSON out. A refusal is a *chat.Error with the agent's kind.
func (l *Local) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, l.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+l.secret)
	r.Header.Set("Content-Type", "application/json")
	answer, err := l.http.Do(r)
	if err != nil {
		return chat.Errorf(chat.Unavailable, "the agent cannot be reached at %s: is it running?", l.base)
	}
	defer answer.Body.Close()
	d := json.NewDecoder(io.LimitReader(answer.Body, 32<<20))
	if answer.StatusCode >= 300 {
		var p problem
		if d.Decode(&p) != nil || p.Detail == "" {
			return chat.Errorf(chat.Internal, "the agent answered %d", answer.StatusCode)
		}
		return chat.Errorf(chat.Kind(strings.TrimPrefix(p.Type, problemType)), "%s", p.Detail)
	}
	if out == nil {
		return nil
	}
	return d.Decode(out)
}
