package listener

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// bound is what the kernel says of a socket.
type bound struct {
	network   string // by type and family, without 4 or 6: "tcp", "udp", "unix", "unixpacket", "unixgram"
	inet      netip.AddrPort
	zone      int  // index of the interface of a link-local address
	only6     bool // IPV6_V6ONLY
	path      string
	listening bool // SO_ACCEPTCONN; true where the platform does not tell
}

// family reports whether the socket is of the family and type that the network asks for.
func (b bound) family(network string) bool {
	base, version := splitVersion(network)
	if base != b.network {
		return false
	}
	switch version {
	case "4":
		return b.inet.Addr().Is4()
	case "6":
		return b.inet.Addr().Is6()
	}
	return true
}

// splitVersion splits "tcp6" into "tcp" and "6".
func splitVersion(network string) (base, version string) {
	base = strings.TrimRight(network, "46")
	return base, network[len(base):]
}

// address is the bound address as package net prints it.
func (b bound) address() string {
	if strings.HasPrefix(b.network, "unix") {
		return b.path
	}
	return (&net.TCPAddr{IP: b.inet.Addr().AsSlice(), Port: int(b.inet.Port()), Zone: zoneName(b.zone)}).String()
}

// zoneName is the name of the interface, or its number if it has none, as in package net.
func zoneName(index int) string {
	if index == 0 {
		return ""
	}
	if ifi, err := net.InterfaceByIndex(index); err == nil {
		return ifi.Name
	}
	return strconv.Itoa(index)
}

// check says whether this can be asked at all.
func (r request) check() error {
	if err := checkName(r.name); err != nil {
		return err
	}
	if r.kind != KindFile && !slices.Contains(networks[r.kind], r.network) {
		return fmt.Errorf("%w, want one of %s", ErrNetwork, strings.Join(networks[r.kind], ", "))
	}
	return nil
}

// fits reports whether the inherited socket is one that the request could have opened. An error says that the request
// makes no sense, or that its host could not be resolved.
func (r request) fits(ctx context.Context, h *heirloom) (bool, error) {
	if r.kind != h.Kind {
		return false, nil
	}
	switch r.network {
	case "": // a file
		return true, nil
	case "unix", "unixpacket", "unixgram":
		return h.bound.family(r.network) && r.fitsName(h.bound.path), nil
	}
	return r.fitsAddress(ctx, h.bound)
}

// fitsName compares the names of Unix sockets. The empty one asks for any that the kernel chooses, and those are abstract.
func (r request) fitsName(path string) bool {
	switch {
	case r.address == "":
		return !isPath(path)
	case r.isPath():
		return isPath(path) && sameSocketFile(r.address, absolute(path))
	}
	return path == "@"+r.address[1:] // an abstract name can also be asked for with a first byte of NUL
}

// fitsAddress compares internet addresses: see the package documentation for the rules.
func (r request) fitsAddress(ctx context.Context, b bound) (bool, error) {
	var host, port string
	if r.address != "" {
		var err error
		if host, port, err = net.SplitHostPort(r.address); err != nil {
			return false, err
		}
	}
	want, err := net.DefaultResolver.LookupPort(ctx, r.network, port)
	if err != nil {
		return false, err
	}
	if !b.family(r.network) || want != 0 && want != int(b.inet.Port()) {
		return false, nil
	}
	asked, err := r.lookup(ctx, host)
	if err != nil {
		return false, err
	}
	is := b.inet.Addr().Unmap().WithZone(zoneName(b.zone))
	// The kernel tells the zone of a TCP socket, but not that of the MPTCP sockets which package net opens for "tcp".
	noZone := b.zone == 0 && is.IsLinkLocalUnicast()
	return slices.ContainsFunc(asked, func(asked netip.Addr) bool {
		switch {
		case asked.IsUnspecified():
			return is.IsUnspecified() && b.versions(r.network)
		case asked.IsMulticast() && b.network == "udp":
			// Package net binds the unspecified address for a group (net.ListenConfig.ListenPacket).
			return is.IsUnspecified() && is.Is4() == asked.Is4()
		}
		return is == asked || noZone && is == asked.WithZone("")
	}), nil
}

// lookup resolves a host. The empty one is unspecified.
func (r request) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if host == "" {
		return []netip.Addr{netip.IPv6Unspecified()}, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	_, version := splitVersion(r.network)
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+version, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// versions reports whether a socket with an unspecified address takes the IP versions that the network asks for. Package net
// binds [::] without IPV6_V6ONLY for "tcp", whichever unspecified address is asked for, and with it for "tcp6"
// (net.favoriteAddrFamily). On a host without IPv6, "tcp" gets an IPv4 socket.
func (b bound) versions(network string) bool {
	if b.inet.Addr().Is4() {
		return true // family was checked
	}
	_, version := splitVersion(network)
	return b.only6 == (version == "6")
}
