"""The test rig: real ClickHouse servers, a scripted fake upstream and client, TLS, chmuxd itself."""
