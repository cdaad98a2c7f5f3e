package device

import (
	"letterlock/canon"
	"letterlock/proof"
)

// EvidenceFile writes what was kept of lies into a file that others can check (spec/evidence.md). It tells nothing of conversations but what
// the sentences say.
func (c *Client) EvidenceFile() ([]byte, error) {
	all, err := c.ListEvidence()
	if err != nil {
		return nil, err
	}
	f := proof.EvidenceFile{Host: c.self.Host, LedgerVKey: c.self.LedgerVKey, Lies: []proof.Lie{}}
	for _, e := range all {
		l := proof.Lie{At: e.At, Sentence: e.Sentence, Checkpoints: []string{}, Data: e.Data}
		if two := c.checkpointsIn(e.Data); two != nil {
			l.Checkpoints, l.Data = two, nil
		}
		f.Lies = append(f.Lies, l)
	}
	return f.Bytes()
}

// checkpointsIn finds the two checkpoints of a ledger that contradicts itself; nil in other evidence.
func (c *Client) checkpointsIn(data []byte) (two []string) {
	var both [][]byte
	if canon.Unmarshal(data, &both) != nil || len(both) != 2 {
		return nil
	}
	for _, signed := range both {
		if _, err := c.log.Open(signed); err != nil {
			return nil
		}
		two = append(two, string(signed))
	}
	return two
}
