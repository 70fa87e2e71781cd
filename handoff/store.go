package handoff

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// DefaultTokenCapacity is how many tokens of a TokenStore may be pending.
	DefaultTokenCapacity = 1024
	// DefaultTokenTTL is how long a token of a TokenStore can be consumed.
	DefaultTokenTTL = 30 * time.Second

	collisionTries = 16
)

var (
	// ErrTokenNotPending says that a token is not, or no longer, to be consumed here: never issued, or consumed before.
	ErrTokenNotPending = errors.New("token not pending")
	// ErrTokenExpired says that a token came after its time to live.
	ErrTokenExpired = errors.New("token expired")
	// ErrTokenStoreFull says that as many tokens are pending as the store may hold.
	ErrTokenStoreFull = errors.New("token store full")
	// ErrTokenCollision says that the source of randomness gave only tokens that are already pending.
	ErrTokenCollision = errors.New("token collision")
)

// TokenStore holds the tokens that may still be consumed: once each, and within their time to live.
//
// The zero value is ready to use; set the fields before the first call. Safe for concurrent use.
type TokenStore struct {
	// Capacity is how many tokens may be pending; 0 and less mean DefaultTokenCapacity.
	Capacity int
	// TTL is how long a token can be consumed; 0 and less mean DefaultTokenTTL.
	TTL time.Duration
	// Random is where tokens come from; nil means crypto/rand.Reader.
	Random io.Reader
	// Now tells the time; nil means time.Now.
	Now func() time.Time

	mu       sync.Mutex
	salt     [sha256.Size]byte
	salted   bool
	pending  map[digest]pendingToken
	earliest time.Time // nothing expires before
}

// digest is what tokens are looked up by. A map answers sooner or later depending on the key; a salted hash of the
// secret makes that time say nothing about the secret. The comparison that counts is Token.Equal.
type digest [sha256.Size]byte

type pendingToken struct {
	token   Token
	expires time.Time
}

// Issue draws a new token and makes it pending. It fails with ErrTokenStoreFull, with ErrTokenCollision after 16 draws
// of tokens that are pending already, or with the error of the source of randomness.
func (s *TokenStore) Issue() (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	random := s.Random
	if random == nil {
		random = rand.Reader
	}
	for range collisionTries {
		token, err := randomToken(random)
		if err != nil {
			return Token{}, err
		}
		switch err := s.addLocked(token); {
		case err == nil:
			return token, nil
		case !errors.Is(err, ErrTokenCollision):
			return Token{}, err
		}
	}
	return Token{}, fmt.Errorf("issue token: %w: %d draws", ErrTokenCollision, collisionTries)
}

// Expect makes a token pending that a peer announced. It fails with ErrTokenMissing for the zero Token, with
// ErrTokenCollision if it is pending already, and with ErrTokenStoreFull.
func (s *TokenStore) Expect(token Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addLocked(token)
}

// Consume ends the life of a pending token. It fails with ErrTokenMissing for the zero Token, ErrTokenExpired, and
// ErrTokenNotPending for a token that was never issued or that was consumed before.
func (s *TokenStore) Consume(token Token) error {
	if token.IsZero() {
		return ErrTokenMissing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.digestLocked(token)
	found, ok := s.pending[key]
	if !ok || !found.token.Equal(token) {
		return ErrTokenNotPending
	}
	delete(s.pending, key)
	if !s.now().Before(found.expires) {
		return ErrTokenExpired
	}
	return nil
}

// Redeem consumes the expected token if presented is its wire form. It tells apart ErrTokenMissing, ErrTokenLength and
// ErrTokenMismatch, none of which consumes anything, and the errors of Consume.
func (s *TokenStore) Redeem(expected Token, presented []byte) error {
	if err := expected.Verify(presented); err != nil {
		return err
	}
	return s.Consume(expected)
}

// Revoke forgets a pending token and reports whether it was pending.
func (s *TokenStore) Revoke(token Token) bool {
	if token.IsZero() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.digestLocked(token)
	_, ok := s.pending[key]
	delete(s.pending, key)
	return ok
}

// Pending returns how many tokens can be consumed now.
func (s *TokenStore) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireLocked()
	return len(s.pending)
}

func (s *TokenStore) addLocked(token Token) error {
	if token.IsZero() {
		return ErrTokenMissing
	}
	capacity := s.Capacity
	if capacity <= 0 {
		capacity = DefaultTokenCapacity
	}
	if len(s.pending) >= capacity {
		s.expireLocked()
	}
	if len(s.pending) >= capacity {
		return fmt.Errorf("%w: %d pending", ErrTokenStoreFull, len(s.pending))
	}
	key := s.digestLocked(token)
	if _, taken := s.pending[key]; taken {
		return ErrTokenCollision
	}
	ttl := s.TTL
	if ttl <= 0 {
		ttl = DefaultTokenTTL
	}
	if s.pending == nil {
		s.pending = make(map[digest]pendingToken)
	}
	expires := s.now().Add(ttl)
	if len(s.pending) == 0 || expires.Before(s.earliest) {
		s.earliest = expires
	}
	s.pending[key] = pendingToken{token: token, expires: expires}
	return nil
}

// expireLocked looks at all tokens only if one of them can have expired: a store that stays full is asked very often.
func (s *TokenStore) expireLocked() {
	now := s.now()
	if now.Before(s.earliest) {
		return
	}
	s.earliest = time.Time{}
	for key, found := range s.pending {
		switch {
		case !now.Before(found.expires):
			delete(s.pending, key)
		case s.earliest.IsZero() || found.expires.Before(s.earliest):
			s.earliest = found.expires
		}
	}
}

func (s *TokenStore) digestLocked(token Token) digest {
	if !s.salted {
		_, _ = rand.Read(s.salt[:]) // never fails: crypto/rand
		s.salted = true
	}
	var input [sha256.Size + TokenSize]byte
	copy(input[:], s.salt[:])
	copy(input[sha256.Size:], *token.secret)
	return sha256.Sum256(input[:])
}

func (s *TokenStore) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}
