#include "daemon/store/prefix_manifest.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/control/model_convert.h"
#include "kvasir/v1/prefix_manifest.pb.h"

#include <sodium.h>

namespace kvasir {
namespace {

constexpr uint32_t kManifestVersion = 2;
constexpr size_t kMacBytes = 32;

template <typename Bytes>
std::string Text(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Errors: kInvalidArgument unless they are 16.
absl::StatusOr<std::array<uint8_t, 16>> Sixteen(const std::string& bytes, const char* field) {
  std::array<uint8_t, 16> out{};
  if (bytes.size() != out.size()) {
    return InvalidArgument("manifest.{} has another length: bytes={} expected=16", field,
                           bytes.size());
  }
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

absl::StatusOr<ChainKey> KeyOf(const std::string& bytes, const char* field) {
  KVASIR_ASSIGN_OR_RETURN(const auto sixteen, Sixteen(bytes, field));
  return ChainKey::FromBytes(sixteen);
}

std::string MacOf(const std::string& manifest, const ChainHasher::Secret& secret) {
  static_assert(std::tuple_size_v<ChainHasher::Secret> >= crypto_generichash_KEYBYTES_MIN);
  std::string mac(kMacBytes, '\0');
  (void)crypto_generichash(reinterpret_cast<unsigned char*>(mac.data()), mac.size(),
                           reinterpret_cast<const unsigned char*>(manifest.data()), manifest.size(),
                           secret.data(), secret.size());
  return mac;
}

// The manifest in it. Errors: kDataLoss unless it was sealed under the secret.
absl::StatusOr<std::string> Unseal(std::string_view bytes, const ChainHasher::Secret& secret) {
  v1::SealedManifest sealed;
  if (!sealed.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DataLoss("manifest is no message of its type: bytes={}", bytes.size());
  }
  const std::string mac = MacOf(sealed.manifest(), secret);
  if (sealed.mac().size() != mac.size() ||
      sodium_memcmp(sealed.mac().data(), mac.data(), mac.size()) != 0) {
    return DataLoss("manifest was not sealed under this host's secret: mac_bytes={}",
                    sealed.mac().size());
  }
  return std::move(*sealed.mutable_manifest());
}

absl::Status CheckTokens(const v1::PrefixManifest& manifest) {
  const auto rows = static_cast<uint64_t>(manifest.tokens_size());
  if (!manifest.state().empty()) {
    if (rows >= kChunkTokens) {
      return InvalidArgument("manifest.tokens is out of bounds: count={} max={}", rows,
                             kChunkTokens - 1);
    }
  } else if (rows == 0 || rows > core::kPrefixTokensMax || rows % kChunkTokens != 0) {
    return InvalidArgument(
        "manifest.tokens is out of bounds: count={} min={} max={} multiple_of={}", rows,
        kChunkTokens, core::kPrefixTokensMax, kChunkTokens);
  }
  for (const uint32_t token : manifest.tokens()) {
    if (token >= manifest.model().vocabulary_size()) {
      return InvalidArgument("manifest.tokens is beyond the vocabulary: token={} max={}", token,
                             manifest.model().vocabulary_size());
    }
  }
  return absl::OkStatus();
}

// Errors: kInvalidArgument unless there are some, and whole ones.
absl::StatusOr<std::vector<ChainKey>> KeysOf(const std::string& bytes) {
  constexpr uint64_t kBytesMax = core::kPrefixTokensMax / kChunkTokens * kChainKeyBytes;
  if (bytes.empty() || bytes.size() > kBytesMax || bytes.size() % kChainKeyBytes != 0) {
    return InvalidArgument("manifest.chain_keys is out of bounds: bytes={} max={} multiple_of={}",
                           bytes.size(), kBytesMax, kChainKeyBytes);
  }
  std::vector<ChainKey> keys;
  for (size_t at = 0; at < bytes.size(); at += kChainKeyBytes) {
    std::array<uint8_t, kChainKeyBytes> key{};
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), key.size(), key.begin());
    keys.push_back(ChainKey::FromBytes(key));
  }
  return keys;
}

// The chain that the secret makes of the tokens, or has made of them. Errors: kDataLoss where it is
// not the manifest's.
absl::StatusOr<PrefixChain> ChainOf(const v1::PrefixManifest& manifest,
                                    const ChainHasher::Secret& secret) {
  KVASIR_ASSIGN_OR_RETURN(const ChainKey scope, KeyOf(manifest.scope(), "scope"));
  std::vector<TokenExtra> extras;
  for (const v1::TokenExtra& extra : manifest.extras()) {
    extras.push_back({extra.row(), extra.digest()});
  }
  if (!manifest.state().empty()) {
    std::vector<ChainKey> keys;
    if (manifest.snapshot_id().empty() || !manifest.chain_keys().empty()) {
      KVASIR_ASSIGN_OR_RETURN(keys, KeysOf(manifest.chain_keys()));
      KVASIR_ASSIGN_OR_RETURN(const ChainKey last, KeyOf(manifest.last_key(), "last_key"));
      if (keys.back() != last) return DataLoss("manifest.last_key is not the last of chain_keys");
    }
    return PrefixChain::Restore(secret, scope, std::move(extras), std::move(keys),
                                {manifest.tokens().begin(), manifest.tokens().end()});
  }
  KVASIR_ASSIGN_OR_RETURN(PrefixChain chain, PrefixChain::Create(secret, scope, std::move(extras)));
  KVASIR_ASSIGN_OR_RETURN(const ChainKey last, KeyOf(manifest.last_key(), "last_key"));
  chain.Append({manifest.tokens().data(), static_cast<size_t>(manifest.tokens_size())});
  if (chain.keys().back() != last) {
    return DataLoss("manifest.last_key does not follow from the tokens under this host's secret");
  }
  return chain;
}

// `rows`: of all runs; nothing: not known.
absl::StatusOr<std::vector<core::StoredPrefix::Run>> RunsOf(const v1::PrefixManifest::Lane& lane,
                                                            std::optional<uint64_t> rows) {
  std::vector<core::StoredPrefix::Run> runs;
  uint64_t sum = 0;
  for (const v1::PrefixManifest::Run& run : lane.runs()) {
    KVASIR_ASSIGN_OR_RETURN(const auto digest, Sixteen(run.digest(), "lanes.runs.digest"));
    if (run.rows() == 0 || run.rows() > run.group_slots()) {
      return InvalidArgument("manifest.lanes.runs.rows is out of bounds: value={} min=1 max={}",
                             run.rows(), run.group_slots());
    }
    if (run.bytes() == 0 || run.bytes() > kTierPayloadBytesMax) {
      return InvalidArgument("manifest.lanes.runs.bytes is out of bounds: value={} min=1 max={}",
                             run.bytes(), kTierPayloadBytesMax);
    }
    sum += run.rows();
    runs.push_back({digest, run.group_slots(), run.rows(), run.bytes(), run.extent(),
                    run.extent_bytes(), run.offset()});
  }
  if (rows && sum != *rows) {
    return InvalidArgument("manifest.lanes has other rows than tokens: rows={} expected={}", sum,
                           *rows);
  }
  return runs;
}

void AddState(const core::Snapshot& snapshot, std::string_view state,
              v1::PrefixManifest* manifest) {
  manifest->set_state(Text(state));
  manifest->set_quality(static_cast<uint32_t>(snapshot.quality));
  manifest->set_encoded(snapshot.encoded);
  manifest->set_prefill_rows(snapshot.prefill_rows);
  manifest->set_condensed_from(snapshot.condensed_from);
}

void AddChain(const PrefixChain& chain, const ManifestParts& parts, v1::PrefixManifest* manifest) {
  manifest->set_scope(Text(chain.scope().ToBytes()));
  if (!chain.keys().empty()) manifest->set_last_key(Text(chain.keys().back().ToBytes()));
  std::span<const TokenId> tokens = parts.tokens;
  if (!parts.state.empty()) {
    tokens = chain.rest();
    for (const ChainKey& key : chain.keys()) {
      manifest->mutable_chain_keys()->append(Text(key.ToBytes()));
    }
  }
  manifest->mutable_tokens()->Assign(tokens.begin(), tokens.end());
  for (const TokenExtra& extra : chain.ExtrasOf(0, chain.rows())) {
    v1::TokenExtra* const out = manifest->add_extras();
    out->set_row(extra.row);
    out->set_digest(extra.bytes);
  }
}

// Of a saved sequence: rows, and keys where it has any.
absl::Status ReadSaved(const v1::PrefixManifest& manifest, const ChainHasher::Secret& secret,
                       core::StoredPrefix* prefix) {
  core::SnapshotFacts& facts = prefix->facts;
  KVASIR_ASSIGN_OR_RETURN(const auto id, Sixteen(manifest.snapshot_id(), "snapshot_id"));
  prefix->saved = core::SnapshotId{id};
  facts.rows = manifest.rows();
  facts.first_rows = manifest.first_rows();
  if (manifest.state().empty() || facts.first_rows > facts.rows) {
    return InvalidArgument(
        "manifest.first_rows is out of bounds, or there is no state: value={} max={} state={}",
        facts.first_rows, facts.rows, manifest.state().size());
  }
  if (manifest.scope().empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(facts.chain, ChainOf(manifest, secret));
  if (facts.chain->rows() == facts.rows) return absl::OkStatus();
  return InvalidArgument("manifest.rows is another than that of its keys: value={} expected={}",
                         facts.rows, facts.chain->rows());
}

absl::Status ReadState(const v1::PrefixManifest& manifest, core::StoredPrefix* prefix) {
  prefix->state = manifest.state();
  if (prefix->state.empty()) {
    prefix->tokens.assign(manifest.tokens().begin(), manifest.tokens().end());
    return absl::OkStatus();
  }
  constexpr auto kBest = static_cast<uint32_t>(core::QualityClass::kFull);
  if (manifest.quality() == 0 || manifest.quality() > kBest) {
    return InvalidArgument("manifest.quality is out of bounds: value={} min=1 max={}",
                           manifest.quality(), kBest);
  }
  prefix->facts.quality = static_cast<core::QualityClass>(manifest.quality());
  prefix->facts.encoded = manifest.encoded();
  prefix->facts.prefill_rows = manifest.prefill_rows();
  prefix->facts.condensed_from = manifest.condensed_from();
  return absl::OkStatus();
}

}  // namespace

std::string EncodeManifest(const core::Snapshot& snapshot, const ManifestParts& parts,
                           const ChainHasher::Secret& secret) {
  v1::PrefixManifest manifest;
  manifest.set_version(kManifestVersion);
  manifest.set_form(Text(snapshot.form.ToBytes()));
  if (parts.saved) {
    manifest.set_snapshot_id(Text(parts.saved->bytes));
    manifest.set_rows(snapshot.rows);
    manifest.set_first_rows(snapshot.first_rows);
  }
  if (!parts.state.empty()) AddState(snapshot, parts.state, &manifest);
  if (snapshot.chain) AddChain(*snapshot.chain, parts, &manifest);
  *manifest.mutable_model() = ToModelSpec(snapshot.model);
  manifest.mutable_model()->set_slots_per_block(snapshot.slots_per_block);
  manifest.set_model_fingerprint(Text(snapshot.model_fingerprint));
  manifest.set_retention(snapshot.retention);
  manifest.set_label(snapshot.label);
  manifest.mutable_lane_of_layer()->Assign(snapshot.lane_of_layer.begin(),
                                           snapshot.lane_of_layer.end());
  for (size_t lane = 0; lane < snapshot.lanes.size(); ++lane) manifest.add_lanes();
  for (const ManifestRun& run : parts.runs) {
    v1::PrefixManifest::Run* const out =
        manifest.mutable_lanes(static_cast<int>(run.at->lane))->add_runs();
    out->set_digest(Text(run.digest));
    out->set_group_slots(run.at->slots);
    out->set_rows(run.at->rows);
    out->set_bytes(run.at->plane_bytes);
    if (!parts.in_memory) continue;
    const Group& group = run.at->group();
    out->set_extent(group.extent->id());
    out->set_extent_bytes(group.extent->bytes());
    out->set_offset(group.offset);
  }
  return SealManifest(manifest.SerializeAsString(), secret);
}

std::string SealManifest(std::string manifest, const ChainHasher::Secret& secret) {
  v1::SealedManifest sealed;
  sealed.set_mac(MacOf(manifest, secret));
  sealed.set_manifest(std::move(manifest));
  return sealed.SerializeAsString();
}

absl::StatusOr<core::StoredPrefix> DecodeManifest(std::string_view bytes,
                                                  const ChainHasher::Secret& secret) {
  KVASIR_ASSIGN_OR_RETURN(const std::string unsealed, Unseal(bytes, secret));
  v1::PrefixManifest manifest;
  if (!manifest.ParseFromString(unsealed)) {
    return DataLoss("manifest is no message of its type: bytes={}", unsealed.size());
  }
  if (manifest.version() != kManifestVersion) {
    return DataLoss("manifest.version is another: value={} expected={}", manifest.version(),
                    kManifestVersion);
  }
  KVASIR_RETURN_IF_ERROR(CheckTokens(manifest));
  core::StoredPrefix prefix;
  core::SnapshotFacts& facts = prefix.facts;
  KVASIR_ASSIGN_OR_RETURN(facts.model, ToModelDescription(manifest.model()));
  KVASIR_ASSIGN_OR_RETURN(const core::Model model, core::Model::Create(facts.model));
  KVASIR_ASSIGN_OR_RETURN(facts.model_fingerprint,
                          Sixteen(manifest.model_fingerprint(), "model_fingerprint"));
  if (facts.model_fingerprint != model.fingerprint()) {
    return DataLoss("manifest.model has another fingerprint now");
  }
  facts.slots_per_block = model.slots_per_block();
  KVASIR_ASSIGN_OR_RETURN(facts.form, KeyOf(manifest.form(), "form"));
  if (!manifest.snapshot_id().empty()) {
    KVASIR_RETURN_IF_ERROR(ReadSaved(manifest, secret, &prefix));
  } else {
    KVASIR_ASSIGN_OR_RETURN(facts.chain, ChainOf(manifest, secret));
    facts.rows = facts.chain->rows();
    facts.first_rows = manifest.state().empty() ? 0 : facts.rows;
  }
  KVASIR_RETURN_IF_ERROR(ReadState(manifest, &prefix));
  facts.retention = manifest.retention();
  facts.label = manifest.label();
  if (manifest.lane_of_layer_size() != static_cast<int>(model.layers())) {
    return InvalidArgument("manifest.lane_of_layer has another length: count={} expected={}",
                           manifest.lane_of_layer_size(), model.layers());
  }
  for (const uint32_t lane : manifest.lane_of_layer()) {
    if (lane >= static_cast<uint32_t>(manifest.lanes_size())) {
      return InvalidArgument("manifest.lane_of_layer is out of bounds: value={} lanes={}", lane,
                             manifest.lanes_size());
    }
    facts.lane_of_layer.push_back(lane);
  }
  for (const v1::PrefixManifest::Lane& lane : manifest.lanes()) {
    KVASIR_ASSIGN_OR_RETURN(
        auto runs, RunsOf(lane, prefix.state.empty() ? std::optional(facts.rows) : std::nullopt));
    prefix.lanes.push_back(std::move(runs));
  }
  return prefix;
}

}  // namespace kvasir
