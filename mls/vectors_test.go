package mls

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"letterlock/mls/roster"
)

// hexBytes is a byte string as the vectors write it.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// loadVectors reads one file of the official vectors, which lie beside the module, in ../shared. Where there is no such
// folder the test is skipped, but not in CI.
func loadVectors(t *testing.T, file string, v any) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "..", "shared", "mls-vectors", file))
	if os.IsNotExist(err) {
		if os.Getenv("CI") != "" {
			t.Fatalf("the official vectors are missing: %v", err)
		}
		t.Skip("the official vectors are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// suiteOrSkip is the suite of a vector; one that is not built skips the subtest.
func suiteOrSkip(t *testing.T, id uint16) suite {
	t.Helper()
	s, err := suiteByID(id)
	if err != nil {
		t.Skip("suite not built")
	}
	return s
}

// same fails the test if two byte strings differ.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %x, want %x", what, got, want)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// signingKey makes a private key of a vector's seed.
func signingKey(seed []byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seed) }

func TestVectorsCryptoBasics(t *testing.T) {
	var vectors []struct {
		Suite   uint16 `json:"cipher_suite"`
		RefHash struct {
			Label string
			Value hexBytes
			Out   hexBytes
		} `json:"ref_hash"`
		Expand struct {
			Secret, Context, Out hexBytes
			Label                string
			Length               int
		} `json:"expand_with_label"`
		Derive struct {
			Secret, Out hexBytes
			Label       string
		} `json:"derive_secret"`
		DeriveTree struct {
			Secret, Out hexBytes
			Label       string
			Generation  uint32
			Length      int
		} `json:"derive_tree_secret"`
		Sign struct {
			Priv, Pub, Content, Signature hexBytes
			Label                         string
		} `json:"sign_with_label"`
		Encrypt struct {
			Priv, Pub, Context, Plaintext, Ciphertext hexBytes
			KEMOutput                                 hexBytes `json:"kem_output"`
			Label                                     string
		} `json:"encrypt_with_label"`
	}
	loadVectors(t, "crypto-basics.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			same(t, "ref hash", s.RefHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
			same(t, "expand", s.expand(secret(v.Expand.Secret), v.Expand.Label, v.Expand.Context, v.Expand.Length), v.Expand.Out)
			same(t, "derive", s.derive(secret(v.Derive.Secret), v.Derive.Label), v.Derive.Out)
			var w roster.Writer
			w.Uint32(v.DeriveTree.Generation)
			same(t, "tree", s.expand(secret(v.DeriveTree.Secret), v.DeriveTree.Label, w.Bytes(), v.DeriveTree.Length), v.DeriveTree.Out)
			if err := s.VerifyWithLabel(v.Sign.Pub, v.Sign.Label, v.Sign.Content, v.Sign.Signature); err != nil {
				t.Error(err)
			}
			same(t, "sign", must(s.SignWithLabel(signingKey(v.Sign.Priv), v.Sign.Label, v.Sign.Content)), v.Sign.Signature)
			e := v.Encrypt
			same(t, "decrypt", must(s.decryptWith(secret(e.Priv), e.Label, e.Context, roster.HPKECiphertext{KEMOutput: e.KEMOutput, Ciphertext: e.Ciphertext})), e.Plaintext)
			ours := must(s.encryptTo(e.Pub, e.Label, e.Context, secret(e.Plaintext)))
			same(t, "encrypt", must(s.decryptWith(secret(e.Priv), e.Label, e.Context, ours)), e.Plaintext)
		})
	}
}

func TestVectorsKeySchedule(t *testing.T) {
	var vectors []struct {
		Suite  uint16   `json:"cipher_suite"`
		Init   hexBytes `json:"initial_init_secret"`
		Epochs []struct {
			Commit        hexBytes `json:"commit_secret"`
			PSK           hexBytes `json:"psk_secret"`
			Context       hexBytes `json:"group_context"`
			Joiner        hexBytes `json:"joiner_secret"`
			Welcome       hexBytes `json:"welcome_secret"`
			InitSecret    hexBytes `json:"init_secret"`
			SenderData    hexBytes `json:"sender_data_secret"`
			Encryption    hexBytes `json:"encryption_secret"`
			ExporterKey   hexBytes `json:"exporter_secret"`
			Authenticator hexBytes `json:"epoch_authenticator"`
			Confirmation  hexBytes `json:"confirmation_key"`
			Membership    hexBytes `json:"membership_key"`
			Resumption    hexBytes `json:"resumption_psk"`
			External      hexBytes `json:"external_secret"`
			ExternalPub   hexBytes `json:"external_pub"`
			Exporter      struct {
				Label           string
				Context, Secret hexBytes
				Length          int
			}
		}
	}
	loadVectors(t, "key-schedule.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			init := secret(v.Init)
			for _, e := range v.Epochs {
				joiner := s.joinerSecret(init, secret(e.Commit), e.Context)
				same(t, "joiner", joiner, e.Joiner)
				k := s.scheduleFrom(joiner, secret(e.PSK), e.Context)
				same(t, "welcome", k.welcome, e.Welcome)
				same(t, "init", k.init, e.InitSecret)
				same(t, "sender data", k.senderData, e.SenderData)
				same(t, "encryption", k.encryption, e.Encryption)
				same(t, "exporter", k.exporter, e.ExporterKey)
				same(t, "authenticator", k.authenticator, e.Authenticator)
				same(t, "confirmation", k.confirmation, e.Confirmation)
				same(t, "membership", k.membership, e.Membership)
				same(t, "resumption", k.resumption, e.Resumption)
				same(t, "export", s.export(k.exporter, e.Exporter.Label, e.Exporter.Context, e.Exporter.Length), e.Exporter.Secret)
				same(t, "external", must(s.deriveKeyPair(secret(e.External))).public, e.ExternalPub)
				init = k.init
			}
		})
	}
}

func TestVectorsPSKSecret(t *testing.T) {
	var vectors []struct {
		Suite  uint16 `json:"cipher_suite"`
		Secret hexBytes
		PSKs   []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes `json:"psk"`
			Nonce hexBytes `json:"psk_nonce"`
		}
		Out hexBytes `json:"psk_secret"`
	}
	loadVectors(t, "psk_secret.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			var ids []roster.PreSharedKeyID
			known := map[string][]byte{}
			for _, p := range v.PSKs {
				ids = append(ids, roster.PreSharedKeyID{Type: roster.PSKExternal, ID: p.ID, Nonce: p.Nonce})
				known[string(p.ID)] = p.PSK
			}
			got, err := s.pskSecret(ids, func(id roster.PreSharedKeyID) ([]byte, bool) { k, ok := known[string(id.ID)]; return k, ok })
			if err != nil {
				t.Fatal(err)
			}
			same(t, "psk secret", got, v.Out)
		})
	}
}

func TestVectorsSecretTree(t *testing.T) {
	var vectors []struct {
		Suite      uint16   `json:"cipher_suite"`
		Encryption hexBytes `json:"encryption_secret"`
		SenderData struct {
			Secret     hexBytes `json:"sender_data_secret"`
			Ciphertext hexBytes
			Key, Nonce hexBytes
		} `json:"sender_data"`
		Leaves [][]struct {
			Generation       uint32
			HandshakeKey     hexBytes `json:"handshake_key"`
			HandshakeNonce   hexBytes `json:"handshake_nonce"`
			ApplicationKey   hexBytes `json:"application_key"`
			ApplicationNonce hexBytes `json:"application_nonce"`
		}
	}
	loadVectors(t, "secret-tree.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			key, nonce := s.senderDataKey(secret(v.SenderData.Secret), v.SenderData.Ciphertext)
			same(t, "sender data key", key, v.SenderData.Key)
			same(t, "sender data nonce", nonce, v.SenderData.Nonce)
			tree := newSecretTree(s, secret(v.Encryption), uint32(len(v.Leaves)))
			for leaf, generations := range v.Leaves {
				r := tree.of(uint32(leaf))
				for _, g := range generations {
					h, advance, err := r.handshake.at(s, g.Generation)
					if err != nil {
						t.Fatal(err)
					}
					same(t, "handshake key", h.key, g.HandshakeKey)
					same(t, "handshake nonce", h.nonce, g.HandshakeNonce)
					advance()
					a, advance, err := r.application.at(s, g.Generation)
					if err != nil {
						t.Fatal(err)
					}
					same(t, "application key", a.key, g.ApplicationKey)
					same(t, "application nonce", a.nonce, g.ApplicationNonce)
					advance()
				}
			}
			if len(tree.nodes) != 0 {
				t.Errorf("%d node secrets left after all leaves were derived", len(tree.nodes))
			}
		})
	}
}

func TestVectorsTranscriptHashes(t *testing.T) {
	var vectors []struct {
		Suite           uint16   `json:"cipher_suite"`
		ConfirmationKey hexBytes `json:"confirmation_key"`
		Content         hexBytes `json:"authenticated_content"`
		InterimBefore   hexBytes `json:"interim_transcript_hash_before"`
		ConfirmedAfter  hexBytes `json:"confirmed_transcript_hash_after"`
		InterimAfter    hexBytes `json:"interim_transcript_hash_after"`
	}
	loadVectors(t, "transcript-hashes.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			r := roster.NewReader(v.Content)
			a := roster.DecodeAuthenticatedContent(r)
			if err := r.Done(); err != nil {
				t.Fatal(err)
			}
			confirmed := a.ConfirmedHash(s.Suite, v.InterimBefore)
			same(t, "confirmed", confirmed, v.ConfirmedAfter)
			same(t, "interim", roster.InterimHash(s.Suite, confirmed, a.ConfirmationTag), v.InterimAfter)
			if err := s.checkMAC(secret(v.ConfirmationKey), confirmed, a.ConfirmationTag); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVectorsMessageProtection(t *testing.T) {
	var vectors []struct {
		Suite           uint16   `json:"cipher_suite"`
		GroupID         hexBytes `json:"group_id"`
		Epoch           uint64
		TreeHash        hexBytes `json:"tree_hash"`
		Confirmed       hexBytes `json:"confirmed_transcript_hash"`
		SignaturePriv   hexBytes `json:"signature_priv"`
		SignaturePub    hexBytes `json:"signature_pub"`
		Encryption      hexBytes `json:"encryption_secret"`
		SenderData      hexBytes `json:"sender_data_secret"`
		Membership      hexBytes `json:"membership_key"`
		Proposal        hexBytes
		ProposalPriv    hexBytes `json:"proposal_priv"`
		ProposalPub     hexBytes `json:"proposal_pub"`
		Commit          hexBytes
		CommitPriv      hexBytes `json:"commit_priv"`
		CommitPub       hexBytes `json:"commit_pub"`
		Application     hexBytes
		ApplicationPriv hexBytes `json:"application_priv"`
	}
	loadVectors(t, "message-protection.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			context := roster.Marshal(&roster.GroupContext{Suite: v.Suite, GroupID: v.GroupID, Epoch: v.Epoch, TreeHash: v.TreeHash, ConfirmedHash: v.Confirmed})
			verify := func(a *roster.AuthenticatedContent) {
				t.Helper()
				if err := s.VerifyWithLabel(v.SignaturePub, "FramedContentTBS", a.TBS(context), a.Signature); err != nil {
					t.Error(err)
				}
			}
			body := func(c *roster.Content) []byte {
				var w roster.Writer
				c.EncodeBody(&w)
				if c.Type == roster.ContentApplication {
					return c.Application
				}
				return w.Bytes()
			}
			openPrivate := func(msg []byte) *roster.AuthenticatedContent {
				t.Helper()
				m := must(roster.DecodeMessage(msg)).Private
				d := must(s.openSenderData(secret(v.SenderData), m))
				r := &newSecretTree(s, secret(v.Encryption), 2).of(d.leaf).handshake
				if m.ContentType == roster.ContentApplication {
					r = &newSecretTree(s, secret(v.Encryption), 2).of(d.leaf).application
				}
				k, _, err := r.at(s, d.generation)
				if err != nil {
					t.Fatal(err)
				}
				return must(s.openContent(m, d, k))
			}
			for _, priv := range []struct{ msg, want hexBytes }{{v.ProposalPriv, v.Proposal}, {v.CommitPriv, v.Commit}, {v.ApplicationPriv, v.Application}} {
				a := openPrivate(priv.msg)
				verify(a)
				same(t, "private content", body(&a.Content), priv.want)

				// Our own sealing of the same, opened again.
				chains := newSecretTree(s, secret(v.Encryption), 2).of(1)
				chain := &chains.handshake
				if a.Content.Type == roster.ContentApplication {
					chain = &chains.application
				}
				k, _, err := chain.at(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				a.Content.Sender.Index = 1
				if err := a.Sign(s.Suite, signingKey(v.SignaturePriv), context); err != nil {
					t.Fatal(err)
				}
				sealed := must(s.sealContent(a, secret(v.SenderData), k, nil))
				again := openPrivate(roster.Marshal(&roster.Message{WireFormat: roster.WirePrivateMessage, Private: sealed}))
				verify(again)
				same(t, "sealed again", body(&again.Content), priv.want)
			}
			for _, pub := range []struct{ msg, want hexBytes }{{v.ProposalPub, v.Proposal}, {v.CommitPub, v.Commit}} {
				m := must(roster.DecodeMessage(pub.msg)).Public
				verify(&m.AuthenticatedContent)
				same(t, "public content", body(&m.Content), pub.want)
				same(t, "membership tag", s.membershipTag(secret(v.Membership), &m.AuthenticatedContent, context), m.MembershipTag)
				signature := bytes.Clone(m.Signature)
				if err := m.Sign(s.Suite, signingKey(v.SignaturePriv), context); err != nil {
					t.Fatal(err)
				}
				same(t, "signature", m.Signature, signature)
			}
		})
	}
}

func TestVectorsTreeKEM(t *testing.T) {
	var vectors []struct {
		Suite     uint16   `json:"cipher_suite"`
		GroupID   hexBytes `json:"group_id"`
		Epoch     uint64
		Confirmed hexBytes `json:"confirmed_transcript_hash"`
		Tree      hexBytes `json:"ratchet_tree"`
		Private   []struct {
			Index         uint32
			Encryption    hexBytes `json:"encryption_priv"`
			SignaturePriv hexBytes `json:"signature_priv"`
			PathSecrets   []struct {
				Node   roster.NodeIndex
				Secret hexBytes `json:"path_secret"`
			} `json:"path_secrets"`
		} `json:"leaves_private"`
		Paths []struct {
			Sender       uint32
			Update       hexBytes    `json:"update_path"`
			PathSecrets  []*hexBytes `json:"path_secrets"`
			CommitSecret hexBytes    `json:"commit_secret"`
			TreeHash     hexBytes    `json:"tree_hash_after"`
		} `json:"update_paths"`
	}
	loadVectors(t, "treekem.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			tree := roster.DecodeTree(s.Suite, roster.NewReader(v.Tree))
			rings := map[uint32]keyring{}
			signers := map[uint32]ed25519.PrivateKey{}
			for _, p := range v.Private {
				ring := keyring{string(tree.Leaf(p.Index).EncryptionKey): secret(p.Encryption)}
				for _, n := range p.PathSecrets {
					pair := must(s.nodeKey(secret(n.Secret)))
					same(t, "node key", pair.public, tree.EncryptionKey(n.Node))
					ring.add(pair)
				}
				rings[p.Index], signers[p.Index] = ring, signingKey(p.SignaturePriv)
			}
			context := roster.GroupContext{Suite: v.Suite, GroupID: v.GroupID, Epoch: v.Epoch - 1, TreeHash: tree.Hash(), ConfirmedHash: v.Confirmed}
			group := roster.TrustedGroup(s.Suite, context, tree, nil)
			for _, p := range v.Paths {
				r := roster.NewReader(p.Update)
				update := roster.DecodeUpdatePath(r)
				if err := r.Done(); err != nil {
					t.Fatal(err)
				}
				step := must(group.BeginOwn(p.Sender, nil, nil, noClock))
				if err := step.ApplyPath(update); err != nil {
					t.Fatal(err)
				}
				same(t, "tree hash", step.Tree.Hash(), p.TreeHash)
				for own, ring := range rings {
					if own == p.Sender {
						continue
					}
					mine := ring.clone()
					commit, err := s.openPath(step, update, own, mine)
					if err != nil {
						t.Fatal(err)
					}
					same(t, "commit secret", commit, p.CommitSecret)
					ancestor := roster.CommonAncestor(roster.NodeOf(own), roster.NodeOf(p.Sender))
					first := must(s.nodeKey(secret(*p.PathSecrets[own])))
					same(t, "path secret's key", first.public, step.Tree.EncryptionKey(ancestor))
				}
				// A path of our own in the same tree, opened by everybody.
				step = must(group.BeginOwn(p.Sender, nil, nil, noClock))
				ours := must(s.makePath(step, v.GroupID, signers[p.Sender], nil))
				for own, ring := range rings {
					if own != p.Sender {
						same(t, "our commit secret", must(s.openPath(step, ours.update, own, ring.clone())), ours.commit)
					}
				}
			}
		})
	}
}

func TestVectorsWelcome(t *testing.T) {
	var vectors []struct {
		Suite      uint16   `json:"cipher_suite"`
		InitPriv   hexBytes `json:"init_priv"`
		SignerPub  hexBytes `json:"signer_pub"`
		KeyPackage hexBytes `json:"key_package"`
		Welcome    hexBytes
	}
	loadVectors(t, "welcome.json", &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			public := must(roster.DecodeMessage(v.KeyPackage)).KeyPackage
			k := &KeyPackage{suite: s, Ref: public.Ref(s.Suite), initKey: keyPair{public.InitKey, secret(v.InitPriv)}}
			m := must(roster.DecodeMessage(v.Welcome)).Welcome
			told := must(k.openSecrets(m))
			psk := make(secret, s.HashSize)
			info := must(s.openGroupInfo(m, told.joiner, psk))
			if err := info.Verify(s.Suite, v.SignerPub); err != nil {
				t.Error(err)
			}
			schedule := s.scheduleFrom(told.joiner, psk, roster.Marshal(&info.Context))
			if err := s.checkMAC(schedule.confirmation, info.Context.ConfirmedHash, info.ConfirmationTag); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVectorsGroupSecrets(t *testing.T) {
	var vectors []map[string]hexBytes
	loadVectors(t, "messages.json", &vectors)
	for _, v := range vectors {
		m, err := decodeGroupSecrets(v["group_secrets"])
		if err != nil {
			t.Fatal(err)
		}
		same(t, "group secrets", roster.Marshal(&m), v["group_secrets"])
	}
}

func TestVectorsPassiveClientWelcome(t *testing.T) { passiveClient(t, "passive-client-welcome.json") }

func TestVectorsPassiveClientHandlingCommit(t *testing.T) {
	passiveClient(t, "passive-client-handling-commit.json")
}

// passiveClient joins by a Welcome and follows the commits of others.
func passiveClient(t *testing.T, file string) {
	var vectors []struct {
		Suite        uint16 `json:"cipher_suite"`
		ExternalPSKs []struct {
			ID  hexBytes `json:"psk_id"`
			PSK hexBytes `json:"psk"`
		} `json:"external_psks"`
		KeyPackage     hexBytes  `json:"key_package"`
		SignaturePriv  hexBytes  `json:"signature_priv"`
		EncryptionPriv hexBytes  `json:"encryption_priv"`
		InitPriv       hexBytes  `json:"init_priv"`
		Welcome        hexBytes  `json:"welcome"`
		Tree           *hexBytes `json:"ratchet_tree"`
		Authenticator  hexBytes  `json:"initial_epoch_authenticator"`
		Epochs         []struct {
			Proposals     []hexBytes
			Commit        hexBytes
			Authenticator hexBytes `json:"epoch_authenticator"`
		}
	}
	loadVectors(t, file, &vectors)
	for _, v := range vectors {
		t.Run("", func(t *testing.T) {
			suiteOrSkip(t, v.Suite)
			known := map[string][]byte{}
			for _, p := range v.ExternalPSKs {
				known[string(p.ID)] = p.PSK
			}
			past := map[uint64][]byte{}
			source := func(id roster.PreSharedKeyID) ([]byte, bool) {
				if id.Type == roster.PSKResumption {
					k, ok := past[id.Epoch]
					return k, ok
				}
				k, ok := known[string(id.ID)]
				return k, ok
			}
			kp, err := newKeyPackage(must(roster.DecodeMessage(v.KeyPackage)).KeyPackage, secret(v.InitPriv), secret(v.EncryptionPriv))
			if err != nil {
				t.Fatal(err)
			}
			o := JoinOptions{Signer: signingKey(v.SignaturePriv), PSK: source}
			if v.Tree != nil {
				o.RatchetTree = *v.Tree
			}
			g, err := Join(v.Welcome, kp, o)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "authenticator", g.EpochAuthenticator(), v.Authenticator)
			for _, e := range v.Epochs {
				past[g.Epoch()] = must(g.ResumptionPSK())
				options := ProcessOptions{PSK: source, PrivateHandshakes: true}
				for _, b := range e.Proposals {
					p, err := g.ProcessWith(b, options)
					if err != nil {
						t.Fatal(err)
					}
					g = p.Group
				}
				p, err := g.ProcessWith(e.Commit, options)
				if err != nil {
					t.Fatal(err)
				}
				if g, err = p.Commit.Merge(); err != nil {
					t.Fatal(err)
				}
				same(t, "authenticator", g.EpochAuthenticator(), e.Authenticator)
			}
		})
	}
}
