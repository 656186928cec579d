package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/private"
)

// BookFile is the name of an issuer's book in its realm's directory. PRIVATE.
const BookFile = "issuer.book"

// maxBook bounds what is read from a book, in bytes: every node of a realm and two credentials
// each.
const maxBook = 1 << 29

// bookPatience is how long a process waits for another one's hold on the book, which lasts for
// milliseconds.
const bookPatience = 10 * time.Second

// Update lets f change the book at path, which is made where it is missing, and returns once
// the change is on disk. Nobody else has the book meanwhile: tickets are made while the issuer
// runs. An error says that what f decided does not count.
func Update(ctx context.Context, path string, f func(*keyring.Book)) error {
	path, err := private.Resolve(path)
	if err != nil {
		return fmt.Errorf("issuer's book: %w\nhint: it belongs beside the issuer's key, in the realm's directory", err)
	}
	ctx, cancel := context.WithTimeout(ctx, bookPatience)
	defer cancel()
	for {
		lock, err := private.Lock(path)
		if err == nil {
			defer lock.Close()
			break
		}
		if !errors.Is(err, private.ErrBusy) {
			return fmt.Errorf("issuer's book %w\n%s", err, hintBook(path))
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("issuer's book %w", err)
		}
	}
	if err := private.RemoveStale(path); err != nil {
		return fmt.Errorf("issuer's book %w\n%s", err, hintBook(path))
	}
	book, fresh, err := load(path)
	if err != nil {
		return err
	}
	defer book.Wipe()
	before := book.Version()
	f(book)
	if !fresh && book.Version() == before {
		return nil
	}
	b := book.Marshal()
	defer clear(b)
	if err := private.Replace(path, b); err != nil {
		return fmt.Errorf("issuer's book %s cannot be written: %w\n%s", path, err, hintBook(path))
	}
	return nil
}

// load reads the book, or begins one.
func load(path string) (book *keyring.Book, fresh bool, err error) {
	b, err := private.Read(path, maxBook)
	if errors.Is(err, fs.ErrNotExist) {
		book, err = keyring.NewBook(rand.Reader)
		return book, true, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("issuer's book %w", err)
	}
	defer clear(b)
	if book, err = keyring.ParseBook(b); err != nil {
		return nil, false, fmt.Errorf("%s: %w\nhint: without it tickets that wait are lost, and forks are found by the roster alone; move it away to begin another", path, err)
	}
	return book, false, nil
}

func hintBook(path string) string {
	return fmt.Sprintf("hint: %s must be writable for this user, with space left", filepath.Dir(path))
}
