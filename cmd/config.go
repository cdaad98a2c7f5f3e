package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"
)

// A command that runs a service can be told what its flags say in three more ways. The first of these counts: the command line, the
// environment, the file that --config names, the flag's default. Every flag has a variable, LETTERLOCK_ and its name in upper case with
// underscores for dashes, and stands under its own name in the file:
//
//	# a comment
//	listen = 127.0.0.1:8080
//	public-url = "https://chat.example"

const (
	envPrefix     = "LETTERLOCK_"
	maxConfigFile = 64 << 10 // bytes
	maxSecretFile = 4 << 10  // bytes
)

// unsettable are flags that make sense on the command line alone; config has a variable too.
var unsettable = []string{"help", "config", "print-config"}

// secrets are flags whose value nobody may read over a shoulder. LETTERLOCK_NAME_FILE names a file that holds it.
var secrets = []string{"database"}

// others are variables of other commands, which may stand in the same environment.
var others = []string{"HOME", "SERVER", "PASSPHRASE_FILE", "AGENT_HOME"}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configure fills the flags that the command line left alone and says where each value came from.
func configure(fs *pflag.FlagSet, environ []string) (sources map[string]string, err error) {
	sources = map[string]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		sources[f.Name] = "default"
		if f.Changed {
			sources[f.Name] = "flag"
		}
	})
	env, err := readEnvironment(fs, environ)
	if err != nil {
		return nil, err
	}
	file, from := fs.Lookup("config").Value.String(), "--config"
	if file == "" {
		file, from = env["config"].text, env["config"].source
	}
	var inFile map[string]value
	if file != "" {
		if inFile, err = readConfigFile(file); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, from)
		}
	}
	for name, v := range inFile {
		if !settable(fs, name) {
			return nil, unknown(fs, v.source, name)
		}
	}
	var failed error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || !settable(fs, f.Name) {
			return
		}
		v, ok := env[f.Name]
		if !ok {
			v, ok = inFile[f.Name]
		}
		if !ok {
			return
		}
		sources[f.Name] = v.source
		if err := fs.Set(f.Name, v.text); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%w: %s: %q is not what %s takes (%s)", errUsage, v.source, shown(f.Name, v.text), f.Name, f.Usage))
		}
	})
	return sources, failed
}

// value is what was said about a flag, and where.
type value struct{ text, source string }

func settable(fs *pflag.FlagSet, name string) bool {
	return fs.Lookup(name) != nil && !slices.Contains(unsettable, name)
}

// readEnvironment finds the variables of flags, by the flags' names. An empty one says nothing. One that no command knows is passed over
// (others name variables too), unless it is so close to a flag's that it must be a slip.
func readEnvironment(fs *pflag.FlagSet, environ []string) (map[string]value, error) {
	found := map[string]value{}
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		said, ok := strings.CutPrefix(name, envPrefix)
		if !ok || text == "" {
			continue
		}
		flag := strings.ToLower(strings.ReplaceAll(said, "_", "-"))
		if secret, ok := strings.CutSuffix(flag, "-file"); ok && slices.Contains(secrets, secret) && fs.Lookup(secret) != nil {
			held, err := readBounded(text, maxSecretFile)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			flag, text = secret, strings.TrimSpace(string(held))
		}
		switch {
		case found[flag] != value{}:
			return nil, fmt.Errorf("%w: %s and %s say the same thing: set one of them", errUsage, found[flag].source, name)
		case flag == "config" || settable(fs, flag):
			found[flag] = value{text, name}
		case slices.Contains(others, said):
		default:
			if near, distance := nearest(fs, flag); distance <= 2 && 2*distance < len(flag) {
				return nil, fmt.Errorf("%w: there is no variable %s: did you mean %s?", errUsage, name, variable(near))
			}
		}
	}
	return found, nil
}

func readConfigFile(path string) (map[string]value, error) {
	data, err := readBounded(path, maxConfigFile)
	if err != nil {
		return nil, err
	}
	said, err := parseConfig(data, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errUsage, err)
	}
	return said, nil
}

// parseConfig reads lines of NAME = VALUE. A value may stand in double quotes, with the escapes of Go and JSON; a line that begins with #
// is a comment. path is for the answers.
func parseConfig(data []byte, path string) (map[string]value, error) {
	said := map[string]value{}
	for i, line := range strings.Split(string(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))), "\n") {
		at := fmt.Sprintf("%s:%d", path, i+1)
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, ok := strings.Cut(line, "=")
		name, text = strings.TrimSpace(name), strings.TrimSpace(text)
		if !ok || name == "" {
			return nil, fmt.Errorf("%s: write NAME = VALUE", at)
		}
		if strings.HasPrefix(text, `"`) {
			var err error
			if text, err = strconv.Unquote(text); err != nil {
				return nil, fmt.Errorf("%s: the quotes do not match", at)
			}
		}
		if before, twice := said[name]; twice {
			return nil, fmt.Errorf("%s: %s stands at %s already", at, name, before.source)
		}
		said[name] = value{text, at}
	}
	return said, nil
}

// unknown refuses a name that is no flag's, with the one that may be meant.
func unknown(fs *pflag.FlagSet, at, name string) error {
	if near, distance := nearest(fs, name); distance <= max(2, len(name)/3) {
		return fmt.Errorf("%w: %s: there is no setting %q: did you mean %s?", errUsage, at, name, near)
	}
	return fmt.Errorf("%w: %s: there is no setting %q (letterlock serve --help lists them)", errUsage, at, name)
}

// nearest finds the flag whose name takes the fewest changes.
func nearest(fs *pflag.FlagSet, name string) (near string, distance int) {
	distance = 1 << 30
	fs.VisitAll(func(f *pflag.Flag) {
		if d := changes(name, f.Name); d < distance && settable(fs, f.Name) {
			near, distance = f.Name, d
		}
	})
	return near, distance
}

// changes counts the letters to put in, take out or replace to make b of a (Levenshtein's distance).
func changes(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		corner := row[0]
		row[0] = i + 1
		for j := range b {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, cost)
		}
	}
	return row[len(b)]
}

// shown is a value as it may be printed.
func shown(flag, text string) string {
	if text != "" && slices.Contains(secrets, flag) {
		return "(hidden)"
	}
	return text
}

// setting is one line of --print-config.
type setting struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	From     string `json:"from"` // flag, default, a variable, or FILE:LINE
	Variable string `json:"variable"`
}

// settingsOf lists what is in force.
func settingsOf(fs *pflag.FlagSet, sources map[string]string) (list []setting) {
	fs.VisitAll(func(f *pflag.Flag) {
		if settable(fs, f.Name) {
			list = append(list, setting{f.Name, shown(f.Name, f.Value.String()), sources[f.Name], variable(f.Name)})
		}
	})
	return list
}

func printSettings(w io.Writer, asJSON bool, list []setting) error {
	if asJSON {
		return json.NewEncoder(w).Encode(list)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range list {
		fmt.Fprintf(t, "%s\t= %s\t(%s)\n", s.Name, s.Value, s.From)
	}
	return t.Flush()
}
