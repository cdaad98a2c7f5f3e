package api

import (
	"context"

	"letterlock/chat"
)

// Caller is who makes a call, as the serving side established it from token and proof.
type Caller struct {
	Account chat.AccountID
	Handle  string
	Device  chat.DeviceID

	Unlimited bool // no limits for this call: the operator exempts callers from the server's own machine
}

type callerKey struct{}

// WithCaller adds the caller to a context; only the layer that checked the token does so.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom finds the caller; a context without one is refused as unauthenticated.
func CallerFrom(ctx context.Context) (Caller, error) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	if !ok {
		return Caller{}, chat.Errorf(chat.Unauthenticated, "this call needs a signed-in device")
	}
	return c, nil
}

// AgentCaller is a partner's agent under one grant, as its access token and proof established.
type AgentCaller struct {
	Partner string
	Grant   chat.GrantID
}

type agentKey struct{}

// WithAgent adds the calling agent to a context; only the layer that checked the token does so.
func WithAgent(ctx context.Context, a AgentCaller) context.Context {
	return context.WithValue(ctx, agentKey{}, a)
}

// AgentFrom finds the calling agent; a context without one is refused as unauthenticated.
func AgentFrom(ctx context.Context) (AgentCaller, error) {
	a, ok := ctx.Value(agentKey{}).(AgentCaller)
	if !ok {
		return AgentCaller{}, chat.Errorf(chat.Unauthenticated, "this call needs an access token of a grant")
	}
	return a, nil
}
