package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
)

// Keys are the keys of a server: what it signs its log, its promises and its labels with. They never leave it.
type Keys struct {
	Ledger note.Signer        // checkpoints; its name is the log's origin
	Server ed25519.PrivateKey // promises, agreements, and the external sender of every conversation
	VRF    *vrf.PrivateKey    // labels

	host string
	vkey string
}

// String keeps keys out of logs.
func (k *Keys) String() string { return "keys of " + k.host }

// GoString keeps keys out of logs.
func (k *Keys) GoString() string { return k.String() }

// Host is the authority that the keys belong to.
func (k *Keys) Host() string { return k.host }

// LedgerVKey is the note verifier of the log.
func (k *Keys) LedgerVKey() string { return k.vkey }

// ServerKey is the public half of Server.
func (k *Keys) ServerKey() ed25519.PublicKey { return k.Server.Public().(ed25519.PublicKey) }

// VRFKey is the public half of VRF.
func (k *Keys) VRFKey() []byte { return k.VRF.PublicKey().Bytes() }

// leaf is the public leaf that announces the keys.
func (k *Keys) leaf(at int64) *proof.ServerKeys {
	return &proof.ServerKeys{Host: k.host, ServerKey: [32]byte(k.ServerKey()), VRFKey: [32]byte(k.VRFKey()), LedgerVKey: k.vkey, At: at}
}

// announcedIn reports whether a keys leaf announces these keys.
func (k *Keys) announcedIn(l *proof.ServerKeys) bool {
	own := k.leaf(l.At)
	return l.Host == own.Host && l.ServerKey == own.ServerKey && l.VRFKey == own.VRFKey && l.LedgerVKey == own.LedgerVKey
}

// NewKeys draws the keys of a new server.
func NewKeys(host string) (*Keys, error) {
	texts, err := drawKeys(host)
	if err != nil {
		return nil, err
	}
	return parseKeys(host, texts)
}

// keyTexts are the contents of the files, by name: base64 of the Ed25519 seed, a note signer, base64 of the VRF scalar.
type keyTexts map[string]string

// The names of the key files.
const (
	serverFile = "server.key"
	ledgerFile = "ledger.key"
	vrfFile    = "vrf.key"
)

const maxKeyFile = 1024

func drawKeys(host string) (keyTexts, error) {
	if err := chat.CheckHost(host); err != nil {
		return nil, err
	}
	_, server, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	log, _, err := note.GenerateKey(rand.Reader, proof.Origin(host))
	if err != nil {
		return nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	return keyTexts{serverFile: b64(server.Seed()), ledgerFile: log, vrfFile: b64(vrf.GenerateKey().Bytes())}, nil
}

func parseKeys(host string, texts keyTexts) (*Keys, error) {
	k := &Keys{host: host}
	seed, err := keyBytes(texts[serverFile])
	if err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", serverFile, err)
	}
	k.Server = ed25519.NewKeyFromSeed(seed)
	scalar, err := keyBytes(texts[vrfFile])
	if err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", vrfFile, err)
	}
	if k.VRF, err = vrf.NewPrivateKey(scalar); err != nil {
		return nil, fmt.Errorf("ledger: %s: not a VRF key", vrfFile)
	}
	if _, err := proof.NewVRFKey(k.VRFKey()); err != nil {
		return nil, fmt.Errorf("ledger: %s: not a VRF key", vrfFile)
	}
	if k.Ledger, k.vkey, err = parseSigner(texts[ledgerFile]); err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", ledgerFile, err)
	}
	if k.Ledger.Name() != proof.Origin(host) {
		return nil, fmt.Errorf("ledger: %s belongs to %s, not to %s: start the server under its old public URL", ledgerFile, k.Ledger.Name(), proof.Origin(host))
	}
	return k, nil
}

var errKeyFile = errors.New("malformed key file")

func keyBytes(text string) ([]byte, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, errKeyFile // not the cause: it may quote the file
	}
	return key, nil
}

// parseSigner reads a note signer (PRIVATE+KEY+name+hash+base64 of 0x01 and the Ed25519 seed) and derives its verifier.
func parseSigner(text string) (note.Signer, string, error) {
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, "", errKeyFile
	}
	parts := strings.SplitN(text, "+", 5) // the base64 may hold a plus of its own
	key, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != 1 {
		return nil, "", errKeyFile
	}
	vkey, err := note.NewEd25519VerifierKey(signer.Name(), ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey))
	return signer, vkey, err
}

// LoadKeys reads the keys of a server from a folder, or draws them if the folder holds none. Each file is written whole and synced
// before this returns, readable by its owner alone. A folder that holds some of the keys was interrupted while they were
// drawn, or lost some: the missing ones are drawn, and Open refuses them if the log knows others.
func LoadKeys(dir, host string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: keys: %w", err)
	}
	fresh, err := drawKeys(host)
	if err != nil {
		return nil, err
	}
	texts := keyTexts{}
	for _, name := range []string{serverFile, ledgerFile, vrfFile} {
		path := filepath.Join(dir, name)
		texts[name], err = readKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			texts[name], err = fresh[name], writeFile(path, []byte(fresh[name]+"\n"))
		}
		if err != nil {
			return nil, fmt.Errorf("ledger: keys: %w", err)
		}
	}
	return parseKeys(host, texts)
}

// ReadKeys reads the keys of a server that was started before. Its host stands in the name of the log's key.
func ReadKeys(dir string) (*Keys, error) {
	texts := keyTexts{}
	for _, name := range []string{serverFile, ledgerFile, vrfFile} {
		text, err := readKey(filepath.Join(dir, name))
		if err != nil {
			return nil, chat.Wrap(chat.NotFound, err, "the folder does not hold the keys of a server")
		}
		texts[name] = text
	}
	signer, _, err := parseSigner(texts[ledgerFile])
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "%s is malformed", ledgerFile)
	}
	host, ok := strings.CutSuffix(signer.Name(), proof.Origin(""))
	if !ok {
		return nil, chat.Errorf(chat.Invalid, "%s is not of a letterlock server", ledgerFile)
	}
	return parseKeys(host, texts)
}

func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others: run chmod 600 on it", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	return strings.TrimSuffix(string(text), "\n"), err
}
