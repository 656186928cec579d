package kafka

// ErrorUnsupportedVersion is the error code of an ApiVersions response to a version of the
// request that the broker does not know. Its body is then that of version 0 (KIP-511).
const ErrorUnsupportedVersion = 35

// An ApiVersionsResponse tells a client which APIs it may use.
type ApiVersionsResponse struct {
	Version    int16 // 0 where ErrorCode is ErrorUnsupportedVersion
	ErrorCode  int16
	APIs       []APIRange
	ThrottleMs int32 // from version 1
	Tags       Tags  // supported and finalized features
}

// An APIRange gives the versions of one API, both inclusive.
type APIRange struct {
	Key, Min, Max int16
	Tags          Tags
}

// ParseApiVersionsResponse reads the body of an ApiVersions response, all of it. The
// version is that of the request.
func ParseApiVersionsResponse(version int16, body []byte) (*ApiVersionsResponse, error) {
	peek := reader{b: body}
	if peek.int16() == ErrorUnsupportedVersion {
		version = 0
	}
	r, err := newReader("response", KeyApiVersions, version, body)
	if err != nil {
		return nil, err
	}
	a := &ApiVersionsResponse{Version: version}
	a.ErrorCode = r.int16()
	a.APIs = make([]APIRange, r.array(6))
	for i := range a.APIs {
		a.APIs[i] = APIRange{Key: r.int16(), Min: r.int16(), Max: r.int16(), Tags: r.tags()}
	}
	if version >= 1 {
		a.ThrottleMs = r.int32()
	}
	a.Tags = r.tags()
	if err := r.endOf("response", KeyApiVersions, version); err != nil {
		return nil, err
	}
	return a, nil
}

// Append appends the body to b.
func (a *ApiVersionsResponse) Append(b []byte) []byte {
	w := newWriter(b, KeyApiVersions, a.Version)
	w.int16(a.ErrorCode)
	w.count(len(a.APIs))
	for i := range a.APIs {
		v := &a.APIs[i]
		w.int16(v.Key)
		w.int16(v.Min)
		w.int16(v.Max)
		w.tags(v.Tags)
	}
	if a.Version >= 1 {
		w.int32(a.ThrottleMs)
	}
	w.tags(a.Tags)
	return w.b
}

// Clamp narrows the answer to what is Supported. APIs of which nothing is left are
// dropped: a range whose minimum lies above its maximum stops some clients. Two minima are
// left as the broker gave them, because librdkafka wants to see version 0: it switches
// compression off when Produce's is 3 (KAFKA-18659), and before 2.1 it takes SASL to be
// missing when SaslHandshake's is 1, though version 1 is what it then uses. A client that
// does use an older version is refused.
func (a *ApiVersionsResponse) Clamp() {
	kept := a.APIs[:0]
	for _, v := range a.APIs {
		low, high, ok := Supported(v.Key)
		if !ok || v.Min > high || v.Max < low {
			continue
		}
		if v.Key != KeyProduce && v.Key != KeySaslHandshake {
			v.Min = max(v.Min, low)
		}
		v.Max = min(v.Max, high)
		if v.Min <= v.Max {
			kept = append(kept, v)
		}
	}
	a.APIs = kept
}

// UnsupportedApiVersions returns the answer to an ApiVersions request whose version is not
// Supported. It lists the versions of ApiVersions alone, so that the client asks again.
func UnsupportedApiVersions() *ApiVersionsResponse {
	low, high, _ := Supported(KeyApiVersions)
	return &ApiVersionsResponse{
		ErrorCode: ErrorUnsupportedVersion,
		APIs:      []APIRange{{Key: KeyApiVersions, Min: low, Max: high}},
	}
}
