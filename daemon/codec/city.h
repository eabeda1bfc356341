#ifndef CHMUX_CODEC_CITY_H
#define CHMUX_CODEC_CITY_H
/*
 * city: CityHash128 v1.0.2, the checksum of ClickHouse's compressed blocks (later versions of
 * CityHash give other results).
 */
#include "base/base.h"

/* Writes the 16 bytes as they stand on the wire: low 64 bits first, each little-endian. */
void city_hash128(const void *p, size_t len, unsigned char out[16]);
#endif
