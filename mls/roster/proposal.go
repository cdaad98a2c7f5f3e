package roster

// ProposalType numbers proposals (RFC 9420, section 17.4).
type ProposalType uint16

const (
	ProposalAdd                    ProposalType = 1
	ProposalUpdate                 ProposalType = 2
	ProposalRemove                 ProposalType = 3
	ProposalPSK                    ProposalType = 4
	ProposalReInit                 ProposalType = 5
	ProposalExternalInit           ProposalType = 6
	ProposalGroupContextExtensions ProposalType = 7
)

// Proposal is one wished change; the field that Type names is set.
type Proposal struct {
	Type         ProposalType
	Add          *KeyPackage
	Update       *LeafNode
	Remove       uint32 // leaf
	PSK          PreSharedKeyID
	ReInit       ReInit
	ExternalInit []byte // KEM output
	Extensions   Extensions
}

// ReInit is decoded and refused: a broken group is reset by its people instead.
type ReInit struct {
	GroupID    []byte
	Version    uint16
	Suite      uint16
	Extensions Extensions
}

func (p *Proposal) Encode(w *Writer) {
	w.Uint16(uint16(p.Type))
	switch p.Type {
	case ProposalAdd:
		p.Add.Encode(w)
	case ProposalUpdate:
		p.Update.Encode(w)
	case ProposalRemove:
		w.Uint32(p.Remove)
	case ProposalPSK:
		p.PSK.Encode(w)
	case ProposalReInit:
		w.Opaque(p.ReInit.GroupID)
		w.Uint16(p.ReInit.Version)
		w.Uint16(p.ReInit.Suite)
		p.ReInit.Extensions.Encode(w)
	case ProposalExternalInit:
		w.Opaque(p.ExternalInit)
	case ProposalGroupContextExtensions:
		p.Extensions.Encode(w)
	}
}

func DecodeProposal(r *Reader) *Proposal {
	p := &Proposal{Type: ProposalType(r.Uint16())}
	switch p.Type {
	case ProposalAdd:
		p.Add = DecodeKeyPackage(r)
	case ProposalUpdate:
		p.Update = DecodeLeafNode(r)
	case ProposalRemove:
		p.Remove = r.Uint32()
	case ProposalPSK:
		p.PSK = DecodePreSharedKeyID(r)
	case ProposalReInit:
		p.ReInit = ReInit{r.Opaque(), r.Uint16(), r.Uint16(), DecodeExtensions(r)}
	case ProposalExternalInit:
		p.ExternalInit = r.Opaque()
	case ProposalGroupContextExtensions:
		p.Extensions = DecodeExtensions(r)
	default:
		r.Fail(unsupported("proposal type %#04x", uint16(p.Type)))
	}
	return p
}

// PSKType tells external keys from those of earlier epochs.
type PSKType uint8

const (
	PSKExternal   PSKType = 1
	PSKResumption PSKType = 2
)

// PreSharedKeyID names a key that both sides hold already (RFC 9420, section 8.4).
type PreSharedKeyID struct {
	Type    PSKType
	ID      []byte // PSKExternal
	Usage   uint8  // PSKResumption: 1 application, 2 reinit, 3 branch
	GroupID []byte // PSKResumption
	Epoch   uint64 // PSKResumption
	Nonce   []byte
}

func (p *PreSharedKeyID) Encode(w *Writer) {
	w.Uint8(uint8(p.Type))
	if p.Type == PSKExternal {
		w.Opaque(p.ID)
	} else {
		w.Uint8(p.Usage)
		w.Opaque(p.GroupID)
		w.Uint64(p.Epoch)
	}
	w.Opaque(p.Nonce)
}

func DecodePreSharedKeyID(r *Reader) PreSharedKeyID {
	p := PreSharedKeyID{Type: PSKType(r.Uint8())}
	switch p.Type {
	case PSKExternal:
		p.ID = r.Opaque()
	case PSKResumption:
		p.Usage, p.GroupID, p.Epoch = r.Uint8(), r.Opaque(), r.Uint64()
		if p.Usage < 1 || p.Usage > 3 {
			r.Fail(malformed("resumption usage %d", p.Usage))
		}
	default:
		r.Fail(malformed("pre-shared key type %d", p.Type))
	}
	p.Nonce = r.Opaque()
	return p
}

// ProposalOrRef stands in a commit: a proposal by value, or the reference of one that was sent before.
type ProposalOrRef struct {
	Proposal *Proposal // nil: by reference
	Ref      []byte
}

// Commit asks for a new epoch (RFC 9420, section 12.4).
type Commit struct {
	Proposals []ProposalOrRef
	Path      *UpdatePath // nil: none
}

func (c *Commit) Encode(w *Writer) {
	w.Vector(func(w *Writer) {
		for _, p := range c.Proposals {
			if p.Proposal != nil {
				w.Uint8(1)
				p.Proposal.Encode(w)
			} else {
				w.Uint8(2)
				w.Opaque(p.Ref)
			}
		}
	})
	w.Optional(c.Path != nil)
	if c.Path != nil {
		c.Path.Encode(w)
	}
}

func DecodeCommit(r *Reader) *Commit {
	c := &Commit{}
	r.Vector(func(r *Reader) {
		var p ProposalOrRef
		switch typ := r.Uint8(); typ {
		case 1:
			p.Proposal = DecodeProposal(r)
		case 2:
			p.Ref = r.Opaque()
		default:
			r.Fail(malformed("proposal or reference of type %d", typ))
		}
		c.Proposals = append(c.Proposals, p)
	})
	if r.Optional() {
		c.Path = DecodeUpdatePath(r)
	}
	return c
}

// UpdatePath renews the committer's leaf and the nodes above it (RFC 9420, section 7.6).
type UpdatePath struct {
	Leaf  *LeafNode
	Nodes []PathNode // the filtered direct path, leaf to root
}

// PathNode is one renewed node, its secret encrypted to the resolution of its child on the copath.
type PathNode struct {
	EncryptionKey []byte
	Secrets       []HPKECiphertext
}

// HPKECiphertext carries the KEM output apart (RFC 9420, section 5.1.3).
type HPKECiphertext struct{ KEMOutput, Ciphertext []byte }

func (c *HPKECiphertext) Encode(w *Writer) {
	w.Opaque(c.KEMOutput)
	w.Opaque(c.Ciphertext)
}

func DecodeHPKECiphertext(r *Reader) HPKECiphertext { return HPKECiphertext{r.Opaque(), r.Opaque()} }

func (p *UpdatePath) Encode(w *Writer) {
	p.Leaf.Encode(w)
	w.Vector(func(w *Writer) {
		for _, n := range p.Nodes {
			w.Opaque(n.EncryptionKey)
			w.Vector(func(w *Writer) {
				for _, c := range n.Secrets {
					c.Encode(w)
				}
			})
		}
	})
}

func DecodeUpdatePath(r *Reader) *UpdatePath {
	p := &UpdatePath{Leaf: DecodeLeafNode(r)}
	r.Vector(func(r *Reader) {
		n := PathNode{EncryptionKey: r.Opaque()}
		r.Vector(func(r *Reader) { n.Secrets = append(n.Secrets, DecodeHPKECiphertext(r)) })
		p.Nodes = append(p.Nodes, n)
	})
	return p
}
