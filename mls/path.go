package mls

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"maps"

	"letterlock/mls/roster"
)

// keyring is a member's HPKE private keys by their public keys: its own leaf, the nodes above it that it knows, and leaves
// that it proposed. Looking up by public key cannot find a key that the tree no longer uses.
type keyring map[string]secret

func (k keyring) add(p keyPair) { k[string(p.public)] = p.private }

// clone copies the secrets too, so that the epochs can be wiped apart.
func (k keyring) clone() keyring {
	c := maps.Clone(k)
	for public, private := range c {
		c[public] = private.clone()
	}
	return c
}

// prune forgets, with their bytes, the keys that do not stand at the leaf or above it.
func (k keyring) prune(t *roster.Tree, leaf uint32) {
	used := map[string]bool{string(t.EncryptionKey(roster.NodeOf(leaf))): true}
	for _, step := range t.DirectPath(leaf) {
		used[string(t.EncryptionKey(step.Node))] = true
	}
	for public, private := range k {
		if !used[public] {
			private.wipe()
			delete(k, public)
		}
	}
}

func (k keyring) wipe() {
	for _, private := range k {
		private.wipe()
	}
	clear(k)
}

// newPath is a path that we make.
type newPath struct {
	update  *roster.UpdatePath
	keys    keyring // of our new leaf and the nodes of the path
	secrets map[roster.NodeIndex]secret
	commit  secret
}

func (p *newPath) wipe() {
	for _, s := range p.secrets {
		s.wipe()
	}
	p.commit.wipe()
}

// makePath gives our leaf a fresh key and each node of its filtered direct path a fresh secret, puts the public parts into
// the step's tree and encrypts the secrets for the others (RFC 9420, sections 7.4 to 7.6).
func (s suite) makePath(step *roster.Step, groupID []byte, signer ed25519.PrivateKey, source io.Reader) (*newPath, error) {
	own := step.Committer
	filtered := step.Tree.FilteredDirectPath(own)
	p := &newPath{update: &roster.UpdatePath{}, keys: keyring{}, secrets: map[roster.NodeIndex]secret{}}
	chain, err := random(source, s.HashSize)
	if err != nil {
		return nil, err
	}
	publics := make([][]byte, len(filtered))
	for i, at := range filtered {
		pair, err := s.nodeKey(chain)
		if err != nil {
			return nil, err
		}
		p.keys.add(pair)
		p.secrets[at.Node], publics[i] = chain, pair.public
		chain = s.derive(chain, "path")
	}
	p.commit = s.pathEnd(chain, len(filtered))
	if err := s.renewLeaf(step, p, publics, groupID, signer, source); err != nil {
		return nil, err
	}
	if err := step.Check(); err != nil {
		return nil, err
	}
	return p, s.encryptPath(step, p, filtered, publics)
}

// pathEnd is the commit secret: the path secret after the last node's. Without nodes the chain has not moved yet.
func (s suite) pathEnd(chain secret, nodes int) secret {
	if nodes == 0 {
		return s.derive(chain, "path")
	}
	return chain
}

// nodeKey is the key pair of the node that has this path secret.
func (s suite) nodeKey(path secret) (keyPair, error) {
	node := s.derive(path, "node")
	defer node.wipe()
	return s.deriveKeyPair(node)
}

// renewLeaf signs our leaf anew with a fresh key and the path's parent hash. All else in it stays.
func (s suite) renewLeaf(step *roster.Step, p *newPath, publics [][]byte, groupID []byte, signer ed25519.PrivateKey, source io.Reader) error {
	pair, err := s.newKeyPair(source)
	if err != nil {
		return err
	}
	p.keys.add(pair)
	leaf := *step.Tree.Leaf(step.Committer)
	leaf.Source, leaf.NotBefore, leaf.NotAfter = roster.LeafCommit, 0, 0
	leaf.EncryptionKey = pair.public
	leaf.ParentHash = step.SetPath(publics)
	if err := leaf.Sign(s.Suite, signer, groupID, step.Committer); err != nil {
		return err
	}
	step.SetLeaf(&leaf)
	p.update.Leaf = &leaf
	return nil
}

// encryptPath encrypts each path secret to the resolution on the other side, under the context with the new tree hash.
func (s suite) encryptPath(step *roster.Step, p *newPath, filtered []roster.PathStep, publics [][]byte) error {
	context := step.PathContext()
	for i, at := range filtered {
		n := roster.PathNode{EncryptionKey: publics[i]}
		for _, to := range step.Tree.Recipients(at.Copath, step.Added) {
			c, err := s.encryptTo(step.Tree.EncryptionKey(to), "UpdatePathNode", context, p.secrets[at.Node])
			if err != nil {
				return err
			}
			n.Secrets = append(n.Secrets, c)
		}
		p.update.Nodes = append(p.update.Nodes, n)
	}
	return nil
}

// openPath finds the ciphertext for us in another's path, adds the keys above to the ring, and returns the commit secret.
// step has the path in its tree already.
func (s suite) openPath(step *roster.Step, update *roster.UpdatePath, own uint32, keys keyring) (secret, error) {
	filtered := step.Tree.FilteredDirectPath(step.Committer)
	for i, at := range filtered {
		if !at.Node.Contains(roster.NodeOf(own)) {
			continue
		}
		for j, to := range step.Tree.Recipients(at.Copath, step.Added) {
			private := keys[string(step.Tree.EncryptionKey(to))]
			if private == nil {
				continue
			}
			path, err := s.decryptWith(private, "UpdatePathNode", step.PathContext(), update.Nodes[i].Secrets[j])
			if err != nil {
				return nil, err
			}
			return s.climb(step.Tree, step.Committer, at.Node, path, keys)
		}
		break
	}
	return nil, invalid("path without a secret for us")
}

// climb derives the secrets from one node on the committer's path up to the root, checks that they give the public keys
// that stand there, adds them to the ring, and returns what follows the last: the commit secret.
func (s suite) climb(t *roster.Tree, committer uint32, from roster.NodeIndex, path secret, keys keyring) (secret, error) {
	if len(path) != s.HashSize {
		return nil, invalid("path secret of %d bytes", len(path))
	}
	for _, at := range t.DirectPath(committer) {
		public := t.EncryptionKey(at.Node)
		if !at.Node.Contains(from) || public == nil {
			continue
		}
		pair, err := s.nodeKey(path)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(pair.public, public) {
			return nil, invalid("path secret does not fit node %d", at.Node)
		}
		keys.add(pair)
		next := s.derive(path, "path")
		path.wipe()
		path = next
	}
	return path, nil
}
