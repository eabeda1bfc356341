<?php
// PHP's curl extension: php client.php URL. One handle reused, as database libraries do.
$url = $argv[1];
$ch = curl_init();

function ask($ch, string $url, string $body, array $headers = []): array
{
    curl_setopt_array($ch, [
        CURLOPT_URL => $url,
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => $body,
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 30,
        CURLOPT_ENCODING => '',
    ]);
    $out = curl_exec($ch);
    return [curl_getinfo($ch, CURLINFO_RESPONSE_CODE), $out, curl_errno($ch)];
}

function expect(bool $ok, string $what, $got): void
{
    if (!$ok) {
        fwrite(STDERR, "FAILED: $what: " . var_export($got, true) . "\n");
        exit(1);
    }
}

for ($i = 0; $i < 50; $i++) {
    $r = ask($ch, $url, "SELECT $i");
    expect($r === [200, "$i\n", 0], "SELECT $i", $r);
}
expect(curl_getinfo($ch, CURLINFO_NUM_CONNECTS) === 0, 'the handle reuses its connection', curl_getinfo($ch, CURLINFO_NUM_CONNECTS));
ask($ch, $url, 'DROP TABLE IF EXISTS client_php');
ask($ch, $url, 'CREATE TABLE client_php (a Int32, s String) ENGINE = Memory');
$rows = '';
for ($i = 0; $i < 50000; $i++) {
    $rows .= "$i\trow $i\n";
}
$r = ask($ch, "$url/?query=" . rawurlencode('INSERT INTO client_php FORMAT TSV'), $rows);
expect($r[0] === 200, 'INSERT', $r);
$r = ask($ch, "$url/?query=" . rawurlencode('INSERT INTO client_php FORMAT TSV'), gzencode($rows), ['Content-Encoding: gzip']);
expect($r[0] === 200, 'INSERT gzip', $r);
$r = ask($ch, $url, 'SELECT count() FROM client_php');
expect($r === [200, "100000\n", 0], 'count', $r);
$r = ask($ch, $url, 'SELECT nope');
expect($r[0] === 404 && str_contains($r[1], 'Code: 47.'), 'error', $r);
$r = ask($ch, $url, 'SELECT currentUser()', ['X-ClickHouse-User: alice', 'X-ClickHouse-Key: secret']);
expect($r === [200, "alice\n", 0], 'alice', $r);
$r = ask($ch, "$url/?max_block_size=1&enable_http_compression=0", 'SELECT sleepEachRow(0.02), throwIf(number = 6) FROM numbers(10)');
expect($r[2] === CURLE_PARTIAL_FILE, 'a cut result is an error', $r);
ask($ch, $url, 'DROP TABLE client_php');
echo "OK\n";
