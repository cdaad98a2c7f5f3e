package cmd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// serveFlags are serve's own flags, with one that is secret.
func serveFlags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	c := serveCommand()
	if c.Flags().Lookup("database") == nil {
		c.Flags().String("database", "", "where the database is")
	}
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return c.Flags()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "letterlock.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryFlagEveryWay says each flag of serve in each way and in all of them at once.
func TestEveryFlagEveryWay(t *testing.T) {
	n := 0
	serveFlags(t).VisitAll(func(f *pflag.Flag) {
		if !settable(serveFlags(t), f.Name) {
			return
		}
		n++
		values := []string{"1", "2", "3"}
		if f.Value.Type() == "bool" {
			values = []string{"true", "true", "true"}
		}
		conf := file(t, f.Name+" = "+values[0]+"\n")
		inEnv := variable(f.Name) + "=" + values[1]
		check := func(fs *pflag.FlagSet, environ []string, want, from string) {
			t.Helper()
			sources, err := configure(fs, environ)
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
				return
			}
			if got := fs.Lookup(f.Name).Value.String(); got != want || sources[f.Name] != from {
				t.Errorf("%s is %q from %s, want %q from %s", f.Name, got, sources[f.Name], want, from)
			}
		}
		check(serveFlags(t), nil, f.DefValue, "default")
		check(serveFlags(t, "--config", conf), nil, values[0], conf+":1")
		check(serveFlags(t), []string{"LETTERLOCK_CONFIG=" + conf}, values[0], conf+":1")
		check(serveFlags(t, "--config", conf), []string{inEnv}, values[1], variable(f.Name))
		check(serveFlags(t, "--config", conf, "--"+f.Name+"="+values[2]), []string{inEnv}, values[2], "flag")
	})
	if n < 10 {
		t.Fatalf("%d flags only", n)
	}
}

func TestConfigRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"listn = 127.0.0.1:0":         `:1: there is no setting "listn": did you mean listen?`,
		"# x\n\nregistation = closed": `:3: there is no setting "registation": did you mean registration?`,
		"config = /etc/other.conf":    `there is no setting "config"`,
		"colour = blue":               `there is no setting "colour" (letterlock serve --help lists them)`,
		"listen":                      ":1: write NAME = VALUE",
		"= x":                         ":1: write NAME = VALUE",
		"data = a\ndata = b":          ":2: data stands at ",
		`data = "a`:                   ":1: the quotes do not match",
		"max-friends = many":          `"many" is not what max-friends takes`,
		"database = postgres://a:b@c/d\n" + "max-friends = x": "max-friends",
		strings.Repeat("#", maxConfigFile+1):                  "larger than",
	} {
		if _, err := configure(serveFlags(t, "--config", file(t, text)), nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", text, err, says)
		}
	}
	for _, c := range []struct{ env, says string }{
		{"LETTERLOCK_REGISTATION=closed", "did you mean LETTERLOCK_REGISTRATION?"},
		{"LETTERLOCK_LISTEM=x", "did you mean LETTERLOCK_LISTEN?"},
		{"LETTERLOCK_DATABASE_FILE=/nowhere", "LETTERLOCK_DATABASE_FILE"},
		{"LETTERLOCK_DATABASE=x LETTERLOCK_DATABASE_FILE=" + file(t, "y"), "say the same thing"},
	} {
		if _, err := configure(serveFlags(t), strings.Fields(c.env)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.env, err)
		}
	}
	// What is another's, or nobody's, is passed over.
	if _, err := configure(serveFlags(t), []string{"LETTERLOCK_HOME=x", "LETTERLOCK_SERVER=x", "LETTERLOCK_PORT_8080_TCP=x", "LETTERLOCK_LISTEN=", "PATH=x"}); err != nil {
		t.Error(err)
	}
}

// TestSecretsAreHidden: a password comes from its own file, is in force, and is printed nowhere.
func TestSecretsAreHidden(t *testing.T) {
	secret := "postgres://letterlock:hunter2@db/letterlock"
	for _, environ := range [][]string{{"LETTERLOCK_DATABASE_FILE=" + file(t, secret+"\n")}, {"LETTERLOCK_DATABASE=" + secret}} {
		fs := serveFlags(t)
		sources, err := configure(fs, environ)
		if err != nil || fs.Lookup("database").Value.String() != secret {
			t.Fatalf("%q %v", fs.Lookup("database").Value, err)
		}
		for _, asJSON := range []bool{false, true} {
			var out strings.Builder
			if err := printSettings(&out, asJSON, settingsOf(fs, sources)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "(hidden)") {
				t.Errorf("printed:\n%s", out.String())
			}
		}
	}
}

// TestPrintConfig goes the way of a command line.
func TestPrintConfig(t *testing.T) {
	t.Setenv("LETTERLOCK_MAX_FRIENDS", "7")
	conf := file(t, "public-url = \"https://chat.example\"\nmax-friends = 8\n")
	code, out, stderr := run("serve", "--config", conf, "--listen", "127.0.0.1:1", "--print-config")
	for _, want := range []string{"public-url              = https://chat.example  (" + conf + ":1)", "max-friends             = 7                     (LETTERLOCK_MAX_FRIENDS)",
		"listen                  = 127.0.0.1:1           (flag)"} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%d, %q is missing in:\n%s%s", code, want, out, stderr)
		}
	}
	for _, args := range [][]string{{"serve"}, {"serve", "--data", "x", "--registration", "maybe"}, {"serve", "--data", "x", "--bytes-per-day=-1"}} {
		if code, _, _ := run(args...); code != exitUsage {
			t.Errorf("%v: %d", args, code)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		said, err := parseConfig(data, "f")
		if err != nil {
			return
		}
		var again strings.Builder
		for name, v := range said {
			fmt.Fprintf(&again, "%s = %q\n", name, v.text)
		}
		back, err := parseConfig([]byte(again.String()), "f")
		if err != nil || len(back) != len(said) {
			t.Fatalf("%q: %v", again.String(), err)
		}
		for name, v := range said {
			if back[name].text != v.text {
				t.Errorf("%s: %q became %q", name, v.text, back[name].text)
			}
		}
	})
}

// TestNotify: the service manager hears of it, by a path and by a name of the abstract namespace.
func TestNotify(t *testing.T) {
	dir, err := os.MkdirTemp("", "ll")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{filepath.Join(dir, "notify"), "@letterlock-test-" + filepath.Base(dir)} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		if err := notify("READY=1"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
			t.Errorf("%q %v", buf[:n], err)
		}
		c.Close()
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify("READY=1"); err != nil {
		t.Error(err)
	}
}

func TestParseDays(t *testing.T) {
	for in, hours := range map[string]float64{"7d": 168, "1d": 24, "36h": 36, "90m": 1.5} {
		if d, err := parseDays(in); err != nil || d.Hours() != hours {
			t.Errorf("%s: %v %v", in, d, err)
		}
	}
	for _, bad := range []string{"", "7", "d", "-1d", "0h", "-3h", "x7d", "7days"} {
		if d, err := parseDays(bad); err == nil {
			t.Errorf("%q is %v", bad, d)
		}
	}
}
