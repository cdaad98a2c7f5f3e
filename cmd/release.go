package cmd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/proof"
)

// released is the version that a release was built as (contrib/build.sh); empty in other builds.
var released string

// version is that of the release, else the module's, or the revision that was built.
func version() string {
	if released != "" {
		return released
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if r := revision(info); r != "" {
		return r
	}
	return info.Main.Version
}

// revision is the commit that was built, if the build noted it.
func revision(info *debug.BuildInfo) string {
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Say which version this is, and what built it", Args: args(0, 0),
		Example: "  letterlock version\n  letterlock version --json",
		RunE: func(c *cobra.Command, _ []string) error {
			said := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				System   string `json:"system"`
				Revision string `json:"revision,omitempty"`
			}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, ""}
			if info, ok := debug.ReadBuildInfo(); ok {
				said.Revision = revision(info)
			}
			return answer(c, asJSON, said, func(w io.Writer) {
				fmt.Fprintf(w, "letterlock %s, built with %s for %s\n", said.Version, said.Go, said.System)
				if said.Revision != "" {
					fmt.Fprintf(w, "revision %s\n", said.Revision)
				}
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return c
}

// fileHash is the SHA-256 of a file, whatever its size.
func fileHash(path string) (h [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, chat.Wrap(chat.NotFound, err, "the file cannot be opened")
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return h, chat.Wrap(chat.Invalid, err, "the file cannot be read")
	}
	return [32]byte(sum.Sum(nil)), nil
}

// releaseSaid is a release as commands show it.
type releaseSaid struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Index   int64  `json:"index"` // in the ledger; -1: it waits for it
}

func sayRelease(r api.Release) (releaseSaid, error) {
	leaf, err := parseRelease(r.Leaf)
	if err != nil {
		return releaseSaid{}, err
	}
	return releaseSaid{leaf.Name, leaf.Version, hex.EncodeToString(leaf.SHA256[:]), r.Index}, nil
}

func parseRelease(data []byte) (*proof.Release, error) {
	leaf, err := proof.ParseLeaf(data)
	if err != nil {
		return nil, err
	}
	r, ok := leaf.(*proof.Release)
	if !ok {
		return nil, chat.Errorf(chat.Incompatible, "the server lists a release that is none")
	}
	return r, nil
}

func printRelease(w io.Writer, r releaseSaid) {
	where := fmt.Sprintf("entry %d", r.Index)
	if r.Index < 0 {
		where = "waits for the ledger"
	}
	fmt.Fprintf(w, "%s  %s %s  (%s)\n", r.SHA256, r.Name, r.Version, where)
}

func (f *adminFlags) releaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "release", Short: "Releases of the program: put a file's hash on record, list what is there",
		Example: "  letterlock admin --data ./data release list",
	}
	c.AddCommand(f.addReleaseCommand(), f.listReleasesCommand())
	return c
}

func (f *adminFlags) addReleaseCommand() *cobra.Command {
	var in api.NewRelease
	c := &cobra.Command{
		Use: "add FILE --version V", Short: "Put the hash of a released file into the ledger, in public and for good", Args: args(1, 1),
		Example: "  letterlock admin --data ./data release add dist/letterlock-linux-amd64 --version v1.0.0",
		RunE: func(c *cobra.Command, a []string) error {
			if in.Name == "" {
				in.Name = filepath.Base(a[0])
			}
			hash, err := fileHash(a[0])
			if err != nil {
				return err
			}
			in.SHA256 = hash[:]
			var got api.Release
			if err := f.call(c.Context(), http.MethodPost, "/releases", in, &got); err != nil {
				return err
			}
			said, err := sayRelease(got)
			if err != nil {
				return err
			}
			return answer(c, f.json, said, func(w io.Writer) { printRelease(w, said) })
		},
	}
	c.Flags().StringVar(&in.Version, "version", "", "the version, like v1.0.0")
	c.Flags().StringVar(&in.Name, "name", "", "the file's name in the ledger (default: as it is called)")
	c.MarkFlagRequired("version")
	return c
}

func (f *adminFlags) listReleasesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the releases on record", Args: args(0, 0),
		Example: "  letterlock admin --data ./data release list",
		RunE: func(c *cobra.Command, _ []string) error {
			var got api.ReleaseList
			if err := f.call(c.Context(), http.MethodGet, "/releases", nil, &got); err != nil {
				return err
			}
			list := []releaseSaid{}
			for _, r := range got.Releases {
				said, err := sayRelease(r)
				if err != nil {
					return err
				}
				list = append(list, said)
			}
			return answer(c, f.json, list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No release is on record. Add one: letterlock admin release add FILE --version V")
				}
				for _, r := range list {
					printRelease(w, r)
				}
			})
		},
	}
}

// orBinary lets verify check a program against the releases in a ledger, in the place of a bundle.
func orBinary(c *cobra.Command, asJSON *bool, vkey *string) *cobra.Command {
	var file, server string
	bundle, bundleArgs := c.RunE, c.Args
	c.Args = func(c *cobra.Command, a []string) error {
		if file != "" && len(a) > 0 {
			return fmt.Errorf("%w: check a bundle or a --binary, not both at once", errUsage)
		}
		if file != "" && server == "" {
			return fmt.Errorf("%w: --binary needs --server URL: whose ledger should have the release", errUsage)
		}
		if file != "" {
			return nil
		}
		return bundleArgs(c, a)
	}
	c.RunE = func(c *cobra.Command, a []string) error {
		if file == "" {
			return bundle(c, a)
		}
		v, err := verifyBinary(c.Context(), file, server, *vkey)
		if err != nil {
			return err
		}
		return answer(c, *asJSON, v, func(w io.Writer) { v.print(w) })
	}
	c.Long += "\n\nWith --binary it checks a program instead, over the network: whether its hash is one that the ledger of a server\nhas on record as released. --binary self checks this very program, as far as a program can say that of itself."
	c.Example += "\n  letterlock verify --binary ./letterlock-linux-amd64 --server https://chat.example"
	c.Flags().StringVar(&file, "binary", "", "check this program against the releases in the ledger of --server; self: this one")
	c.Flags().StringVar(&server, "server", "", "the public URL of the server whose ledger is asked")
	return c
}

// binaryVerdict is what the check of a program says.
type binaryVerdict struct {
	releaseSaid
	Host   string `json:"host"`
	Size   int64  `json:"ledger_size"`
	Pinned bool   `json:"ledger_pinned"`
	vkey   string
}

func (v binaryVerdict) print(w io.Writer) {
	fmt.Fprintf(w, "This file is %s %s as released by %s, entry %d of its ledger.\n", v.Name, v.Version, v.Host, v.Index)
	if !v.Pinned {
		fmt.Fprintf(w, "The ledger's key is the server's own claim. Compare it with another source and give it with --ledger-key:\n  %s\n", v.vkey)
	}
}

// verifyBinary looks for the file's hash among the releases in the ledger of a server.
func verifyBinary(ctx context.Context, file, url, vkey string) (v binaryVerdict, err error) {
	if file == "self" {
		if file, err = os.Executable(); err != nil {
			return v, err
		}
	}
	hash, err := fileHash(file)
	if err != nil {
		return v, err
	}
	d, err := stranger(url)
	if err != nil {
		return v, err
	}
	who, err := d.Server(ctx)
	if err != nil {
		return v, err
	}
	v.Pinned, v.vkey = vkey != "", vkey
	if vkey == "" {
		v.vkey = who.LedgerVKey
	}
	key, err := note.NewVerifier(v.vkey)
	if err != nil {
		return v, chat.Wrap(chat.Invalid, err, "the ledger's key is malformed")
	}
	v.Host = strings.TrimSuffix(key.Name(), proof.Origin(""))
	leaf, index, size, err := findRelease(ctx, d, key, hash)
	if err != nil {
		return v, err
	}
	if leaf == nil {
		return v, chat.Errorf(chat.Unproven, "none of the releases in the ledger of %s is this file, whose SHA-256 is %x", v.Host, hash)
	}
	v.releaseSaid = releaseSaid{leaf.Name, leaf.Version, hex.EncodeToString(hash[:]), index}
	v.Size = size
	return v, nil
}

// stranger is a client without an account, for what everybody may read.
func stranger(url string) (*httpclient.Device, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return httpclient.NewDevice(httpclient.Options{BaseURL: url, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{}, "")
}

// findRelease goes through the public entries of the ledger, each proven by its map, for a release with a hash; nil: among all of them there
// is none. index is where it stands, size that of the ledger.
func findRelease(ctx context.Context, d *httpclient.Device, key note.Verifier, hash [32]byte) (_ *proof.Release, index, size int64, err error) {
	for k := uint64(0); ; {
		page, err := d.PublicEntries(ctx, k)
		if err != nil {
			return nil, 0, 0, err
		}
		m, err := openPublic(page, key, k)
		if err != nil {
			return nil, 0, 0, chat.Wrap(chat.Unproven, err, "the server does not prove what its ledger holds")
		}
		for _, e := range page.Entries {
			if leaf, err := parseRelease(e.Leaf); err == nil && leaf.SHA256 == hash {
				return leaf, e.Index, m.Checkpoint.Size, nil
			}
		}
		k += uint64(len(page.Entries))
		if k >= m.Public {
			return nil, 0, m.Checkpoint.Size, nil
		}
		if len(page.Entries) == 0 {
			return nil, 0, 0, chat.Errorf(chat.Unproven, "the server shows %d of the %d public entries that its ledger has", k, m.Public)
		}
	}
}

// openPublic checks a page of public entries from number k on against the map root that came with it.
func openPublic(page api.PublicEntries, key note.Verifier, k uint64) (m proof.Map, err error) {
	head, err := proof.ParseHead(page.Head)
	if err != nil {
		return m, err
	}
	if m, err = head.Open(key); err != nil {
		return m, err
	}
	for i, e := range page.Entries {
		if err := m.Has(proof.PublicLabel(k+uint64(i)), proof.LeafHash(e.Leaf), e.Index, e.Proof); err != nil {
			return m, err
		}
	}
	return m, nil
}
