#include "client/session.h"

#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "base/shortage.h"
#include "base/status_macros.h"
#include "client/device_rows.h"
#include "client/ring_calls.h"
#include "client/sequence_state.h"
#include "client/session_state.h"
#include "proto/shm/data_messages.h"
#include "proto/shm/probe_pattern.h"

#include <sodium.h>

namespace kvasir {
namespace {

constexpr uint64_t kTextBytesMax = 64;
constexpr uint64_t kTextsBytesOfCall = 512 << 10;

// Tries again while the daemon's backlog is full.
absl::StatusOr<UniqueFd> ConnectWithin(const std::string& path, Instant deadline) {
  for (;;) {
    absl::StatusOr<UniqueFd> socket = ConnectUnix(path, SocketType::kSeqPacket);
    if (socket.status().code() != absl::StatusCode::kDeadlineExceeded ||
        std::chrono::steady_clock::now() >= deadline) {
      return socket;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Says hello and takes the two segments.
absl::StatusOr<shm::Welcome> Greet(SessionState& state) {
  shm::Hello hello{};
  hello.magic = shm::kHelloMagic;
  hello.kind = static_cast<uint32_t>(shm::MessageKind::kHello);
  hello.abi_min = hello.abi_max = shm::kAbiVersion;
  KVASIR_RETURN_IF_ERROR(SendMessage(state.socket, std::as_bytes(std::span(&hello, 1)), {}));
  KVASIR_ASSIGN_OR_RETURN(
      const bool readable,
      WaitReadable(state.socket.get(), static_cast<int>(state.deadline.count())));
  if (!readable) return DeadlineExceeded("the daemon does not answer on the data socket");
  // A refusal is the longest; a byte more shows that a message is longer than any.
  std::array<std::byte, sizeof(shm::Refusal) + 1> buffer{};
  KVASIR_ASSIGN_OR_RETURN(ReceivedMessage message, ReceiveMessage(state.socket, buffer));
  KVASIR_ASSIGN_OR_RETURN(const shm::Welcome welcome,
                          shm::ParseAnswer({std::span(buffer).first(message.bytes),
                                            message.truncated, message.fds.size()}));
  KVASIR_ASSIGN_OR_RETURN(state.d,
                          MappedRegion::Map(message.fds[0], welcome.d_bytes, Access::kReadOnly));
  KVASIR_ASSIGN_OR_RETURN(state.e,
                          MappedRegion::Map(message.fds[1], welcome.e_bytes, Access::kReadWrite));
  state.doorbell = std::move(message.fds[2]);
  return welcome;
}

void Fill(const ModelSpec& spec, v1::ModelSpec* out) {
  out->set_name(spec.name);
  switch (spec.kv_type) {
    case KvType::kF16:
      out->set_dtype(v1::DATA_TYPE_F16);
      break;
    case KvType::kBF16:
      out->set_dtype(v1::DATA_TYPE_BF16);
      break;
    case KvType::kF32:
      out->set_dtype(v1::DATA_TYPE_F32);
      break;
    case KvType::kF8E4M3:
      out->set_dtype(v1::DATA_TYPE_F8_E4M3);
      break;
  }
  for (const LayerSpec& layer : spec.layers) {
    v1::LayerSpec* added = out->add_layers();
    added->set_kv_heads(layer.kv_heads);
    added->set_k_head_dim(layer.k_head_dim);
    added->set_v_head_dim(layer.v_head_dim);
    added->set_attention(layer.sliding_window > 0 ? v1::ATTENTION_KIND_SLIDING_WINDOW
                                                  : v1::ATTENTION_KIND_FULL);
    added->set_sliding_window(layer.sliding_window);
    added->set_query_heads(layer.query_heads);
  }
  if (spec.rope != RopeStyle::kNone) {
    out->mutable_rope()->set_pairing(spec.rope == RopeStyle::kInterleaved
                                         ? v1::RopeSpec::PAIRING_INTERLEAVED
                                         : v1::RopeSpec::PAIRING_HALF_SPLIT);
    out->mutable_rope()->set_theta(spec.rope_theta);
    out->mutable_rope()->set_rotated_dims(spec.rope_dims);
  }
  out->mutable_separator_token_ids()->Add(spec.separator_token_ids.begin(),
                                          spec.separator_token_ids.end());
  out->set_vocabulary_size(spec.vocabulary_size);
  out->set_slots_per_block(spec.slots_per_block);
  out->set_weights_digest(spec.weights_digest);
  for (const std::string& digest : spec.adapter_digests) out->add_adapter_digests(digest);
  out->set_prefill_rows_per_s(spec.prefill_rows_per_s);
}

// Writes the client's pattern into slots [0, S/2), or checks the daemon's in [S/2, S).
absl::Status WriteOrCheckProbe(std::byte* base, const shm::GroupGeometry& geometry, uint64_t seed,
                               bool write) {
  const uint32_t half = geometry.slots / 2;
  for (uint32_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    for (uint32_t plane = 0; plane < 2; ++plane) {
      const uint32_t bytes = plane == 0 ? geometry.row_bytes[layer].k : geometry.row_bytes[layer].v;
      const uint64_t off = plane == 0 ? geometry.k_off[layer] : geometry.v_off[layer];
      for (uint32_t slot = write ? 0 : half; slot < (write ? half : geometry.slots); ++slot) {
        std::byte* const row = base + off + uint64_t{slot} * bytes;
        for (uint32_t b = 0; b < bytes; ++b) {
          const std::byte wanted{shm::ProbeByte(seed, layer, plane, slot, b)};
          if (write) {
            row[b] = wanted;
          } else if (row[b] != wanted) {
            return FailedPrecondition(
                "client and daemon lay out blocks differently: layer={} plane={} slot={} byte={}",
                layer, plane == 0 ? "K" : "V", slot, b);
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

// Likewise, wherever the group lies: on a device by way of a copy.
absl::Status Probe(const GroupPlace& place, const shm::GroupGeometry& geometry, uint64_t seed,
                   bool write) {
  if (place.device == nullptr) return WriteOrCheckProbe(place.planes, geometry, seed, write);
  std::vector<std::byte> copy(geometry.pos_off);
  if (!write) KVASIR_RETURN_IF_ERROR(ReadDevice(*place.device, place.planes, copy));
  KVASIR_RETURN_IF_ERROR(WriteOrCheckProbe(copy.data(), geometry, seed, write));
  return write ? WriteDevice(*place.device, copy, place.planes) : absl::OkStatus();
}

void Fill(const PrefixOptions& prefix, v1::PrefixKey* out) {
  out->mutable_tokens()->Add(prefix.tokens.begin(), prefix.tokens.end());
  for (const TokenDigest& one : prefix.digests) {
    v1::TokenExtra* const extra = out->add_extras();
    extra->set_row(one.row);
    extra->set_digest(one.digest);
  }
  out->set_salt(prefix.salt);
  out->set_rows_max(prefix.rows_max);
}

ClientModel ModelOf(const ModelSpec& spec, uint32_t slots_per_block) {
  ClientModel model;
  model.slots_per_block = slots_per_block;
  model.vocabulary_size = spec.vocabulary_size;
  const uint32_t element = ElementBytes(spec.kv_type);
  for (const LayerSpec& layer : spec.layers) {
    model.row_bytes.push_back(
        {layer.kv_heads * layer.k_head_dim * element, layer.kv_heads * layer.v_head_dim * element});
    model.kv_heads.push_back(layer.kv_heads);
    model.query_heads.push_back(layer.query_heads);
    model.k_head_dim.push_back(layer.k_head_dim);
    model.v_head_dim.push_back(layer.v_head_dim);
  }
  return model;
}

}  // namespace

Session::Session(std::shared_ptr<SessionState> state) : state_(std::move(state)) {}
Session::~Session() = default;

absl::StatusOr<std::unique_ptr<Session>> Session::Connect(const ConnectOptions& options) {
  auto state = std::make_shared<SessionState>();
  state->deadline = options.deadline;
  KVASIR_ASSIGN_OR_RETURN(state->socket,
                          ConnectWithin(options.data_socket, state->DeadlineFromNow()));
  KVASIR_ASSIGN_OR_RETURN(const shm::Welcome welcome, Greet(*state));
  KVASIR_RETURN_IF_ERROR(shm::CheckDaemonHeader(state->header(), welcome));
  KVASIR_RETURN_IF_ERROR(OpenRing(*state, options));
  reinterpret_cast<shm::EngineHeader*>(state->e.data())->magic = shm::kEngineMagic;
  std::array<char, 2 * sizeof(welcome.token) + 1> hex{};
  ::sodium_bin2hex(hex.data(), hex.size(), welcome.token, sizeof(welcome.token));
  state->channel =
      std::make_unique<ControlChannel>(options.control_socket, hex.data(), options.deadline);
  state->extents = std::make_unique<ExtentMap>(state->socket, options.devices);
  return std::unique_ptr<Session>(new Session(std::move(state)));
}

absl::StatusOr<ModelHandle> Session::RegisterModel(const ModelSpec& spec) {
  v1::RegisterModelRequest request;
  Fill(spec, request.mutable_spec());
  request.set_pool(spec.pool);
  v1::RegisterModelResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::KvCache::Stub::RegisterModel, request, &response));
  ClientModel model = ModelOf(spec, response.slots_per_block());
  const shm::GroupGeometry geometry =
      shm::MakeGroupGeometry(model.row_bytes, model.slots_per_block);
  KVASIR_ASSIGN_OR_RETURN(
      const GroupPlace place,
      state_->extents->GroupAt(response.probe_extent(), response.probe_generation(),
                               response.probe_offset(), geometry, state_->DeadlineFromNow(),
                               Access::kReadWrite));
  v1::ProbeLayoutRequest probe_request;
  probe_request.set_model_id(response.model_id());
  uint64_t seed = 0;
  KVASIR_RETURN_IF_ERROR(FillRandom(&seed, sizeof(seed)));
  probe_request.set_seed(seed);
  KVASIR_RETURN_IF_ERROR(Probe(place, geometry, seed, true));
  v1::ProbeLayoutResponse probe_response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::KvCache::Stub::ProbeLayout, probe_request, &probe_response));
  KVASIR_RETURN_IF_ERROR(Probe(place, geometry, probe_response.seed(), false));
  MutexLock lock(state_->mutex);
  state_->models[response.model_id()] = std::move(model);
  return ModelHandle{response.model_id(), response.slots_per_block(), response.model_fingerprint(),
                     place.device};
}

absl::StatusOr<Sequence> Session::OpenSequence(const OpenOptions& options) {
  ClientModel model;
  {
    MutexLock lock(state_->mutex);
    const auto found = state_->models.find(options.model.id);
    if (found == state_->models.end()) {
      return NotFound("unknown model: model_id={}", options.model.id);
    }
    model = found->second;
  }
  v1::OpenSequenceRequest request;
  request.set_model_id(options.model.id);
  request.set_retention(options.retention);
  request.set_prompt_rows(options.prompt_rows);
  request.set_max_rows(options.max_rows);
  request.set_label(options.label);
  request.set_reads_records(options.reads_records);
  request.set_snapshot_id(options.snapshot);
  request.set_snapshot_rows(options.snapshot_rows);
  request.set_lease_id(options.lease);
  Fill(options.hints, request.mutable_hints());
  if (options.prefix) {
    Fill(*options.prefix, request.mutable_prefix());
    if (const auto least = options.prefix->least_quality) {
      request.set_least_quality(static_cast<v1::QualityClass>(*least));
    }
  }
  v1::OpenSequenceResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::KvCache::Stub::OpenSequence, request, &response));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<SequenceState> sequence,
                          SequenceState::Create(state_, std::move(model), response));
  return Sequence(std::move(sequence));
}

absl::StatusOr<std::vector<PrefixForm>> Session::MatchPrefix(const ModelHandle& model,
                                                             const PrefixOptions& prefix,
                                                             bool prefetch) {
  if (FitsRing(*state_, prefix)) return MatchByRing(*state_, model.id, prefix, prefetch);
  v1::MatchPrefixRequest request;
  request.set_model_id(model.id);
  request.set_prefetch(prefetch);
  Fill(prefix, request.mutable_prefix());
  v1::MatchPrefixResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::KvCache::Stub::MatchPrefix, request, &response));
  std::vector<PrefixForm> forms;
  for (const v1::PrefixForm& form : response.forms()) {
    forms.push_back({form.retention(), static_cast<PrefixQuality>(form.quality()), form.rows(),
                     form.is_public(), form.place(), form.condensed_from()});
  }
  return forms;
}

absl::StatusOr<PrefixLease> Session::LeasePrefix(const LeaseOptions& options) {
  if (options.ttl.count() < 0) {
    return InvalidArgument("ttl is negative: ms={}", options.ttl.count());
  }
  v1::LeasePrefixRequest request;
  Fill(options.prefix, request.mutable_prefix());
  for (const LeaseMember& member : options.members) {
    v1::LeaseMember* const added = request.add_members();
    added->set_model_fingerprint(member.model_fingerprint);
    added->set_retention(member.retention);
    if (member.least_quality) {
      added->set_least_quality(static_cast<v1::QualityClass>(*member.least_quality));
    }
    added->set_reads_records(member.reads_records);
  }
  request.set_prompt_rows(options.prompt_rows);
  request.set_ttl_ms(static_cast<uint64_t>(options.ttl.count()));
  v1::LeasePrefixResponse response;
  KVASIR_RETURN_IF_ERROR(
      state_->channel->Call(&v1::KvCache::Stub::LeasePrefix, request, &response));
  PrefixLease lease;
  if (response.rows() == 0) return lease;
  lease.session_ = state_;
  lease.id_ = response.lease_id();
  lease.rows_ = response.rows();
  lease.ttl_ = std::chrono::milliseconds(response.ttl_ms());
  for (const v1::LeasedForm& form : response.forms()) {
    lease.forms_.push_back(
        {form.retention(), static_cast<PrefixQuality>(form.quality()), form.is_public()});
  }
  return lease;
}

absl::Status Session::DropSnapshot(const std::string& snapshot_id) {
  v1::DropSnapshotRequest request;
  request.set_snapshot_id(snapshot_id);
  v1::DropSnapshotResponse response;
  return state_->channel->Call(&v1::KvCache::Stub::DropSnapshot, request, &response);
}

absl::Status Session::PutTokenTexts(const ModelHandle& model, uint32_t first,
                                    const std::vector<std::string>& texts) {
  for (size_t at = 0; at < texts.size();) {
    v1::PutTokenTextsRequest request;
    request.set_model_id(model.id);
    request.set_first_id(first + static_cast<uint32_t>(at));
    for (uint64_t bytes = 0; at < texts.size() && bytes < kTextsBytesOfCall; ++at) {
      request.add_texts(texts[at].substr(0, kTextBytesMax));
      bytes += texts[at].size() + 8;
    }
    v1::PutTokenTextsResponse response;
    KVASIR_RETURN_IF_ERROR(
        state_->channel->Call(&v1::KvCache::Stub::PutTokenTexts, request, &response));
  }
  return absl::OkStatus();
}

uint32_t Session::id() const { return state_->header().session_id; }
uint64_t Session::boot_epoch() const { return state_->header().boot_epoch; }
Session::CallCounts Session::calls() const {
  return {state_->ring_calls.load(std::memory_order_relaxed), state_->channel->calls()};
}

std::optional<std::chrono::milliseconds> RetryAfter(const absl::Status& status) {
  const std::optional<Shortage> shortage = ShortageOf(status);
  if (!shortage) return std::nullopt;
  return shortage->retry_after;
}

uint64_t Session::wanted_back_bytes() const {
  return state_->header().wanted_back.load(std::memory_order_relaxed);
}

}  // namespace kvasir
