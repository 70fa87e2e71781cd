module github.com/segue-go/segue/examples/websocket

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/segue-go/segue v0.0.0
)

require (
	github.com/cloudflare/tableflip v1.2.3 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/fxamacker/cbor/v2 v2.10.0 // indirect
	github.com/oklog/run v1.2.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/segue-go/segue => ../..
