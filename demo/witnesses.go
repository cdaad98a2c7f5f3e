package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// watchers are who must sign a checkpoint before the server publishes it: two witnesses and an auditor. They run on this machine under the
// server's own name, and are called "not independent" wherever they are shown.
var watchers = []string{"witness-one", "witness-two", "auditor"}

// StartWitnessed starts the server, two witnesses and an auditor for its ledger, and the server again under a policy that needs all three.
func (s *Stage) StartWitnessed(ctx context.Context, args ...string) error {
	server, err := s.StartServer(ctx, args...)
	if err != nil {
		return err
	}
	var about struct {
		Host       string
		LedgerVKey string `json:"ledger_vkey"`
	}
	if err := getJSON(ctx, s.URL()+"/.well-known/letterlock", &about); err != nil {
		return err
	}
	s.LedgerKey = about.LedgerVKey
	policy := "log " + about.LedgerVKey + "\n"
	for _, name := range watchers {
		port, err := freePort()
		if err != nil {
			return err
		}
		vkey, url, err := s.startWatcher(ctx, name, about.Host, port)
		if err != nil {
			return err
		}
		s.Watchers = append(s.Watchers, url)
		policy += fmt.Sprintf("witness %s %s %s\n", name, vkey, url)
	}
	policy += "group everybody all " + strings.Join(watchers, " ") + "\nquorum everybody\n"
	s.Policy = filepath.Join(s.Dir, "witnesses.policy")
	if err := os.WriteFile(s.Policy, []byte(policy), 0o600); err != nil {
		return err
	}
	if err := server.Stop(); err != nil {
		return err
	}
	_, err = s.StartServer(ctx, append(args, "--policy", s.Policy)...)
	return err
}

// ResumeWatched starts the witnesses and the auditor of an earlier stage on this folder again, where its policy says that they are. The
// server logs that policy, and needs it no more.
func (s *Stage) ResumeWatched(ctx context.Context, earlier *Stage) error {
	s.LedgerKey, s.Policy, s.Watchers = earlier.LedgerKey, earlier.Policy, earlier.Watchers
	host, _, _ := strings.Cut(s.LedgerKey, "/")
	for i, name := range watchers {
		u, err := url.Parse(s.Watchers[i])
		if err != nil {
			return err
		}
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			return err
		}
		if _, _, err := s.startWatcher(ctx, name, host, port); err != nil {
			return err
		}
	}
	return nil
}

// startWatcher starts a witness or the auditor.
func (s *Stage) startWatcher(ctx context.Context, name, host string, port int) (vkey, address string, err error) {
	at := fmt.Sprintf("127.0.0.1:%d", port)
	args := []string{"witness"}
	home := s.Home(name)
	if name == "auditor" {
		args, home = []string{"audit", "--url", s.URL()}, filepath.Join(home, "witness")
	}
	p, err := s.Start(name, append(args, "--home", s.Home(name), "--listen", at, "--log", s.LedgerKey, "--name", host+"/"+name)...)
	if err != nil {
		return "", "", err
	}
	if err := s.waitForPort(ctx, p, at); err != nil {
		return "", "", err
	}
	out, err := s.Run(ctx, "witness", "key", "--home", home, "--json")
	if err != nil {
		return "", "", err
	}
	var key struct{ VKey string }
	err = json.Unmarshal([]byte(out), &key)
	return key.VKey, "http://" + at + "/", err
}

func getJSON(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}
