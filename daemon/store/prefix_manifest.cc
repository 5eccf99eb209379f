#include "daemon/store/prefix_manifest.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/control/model_convert.h"
#include "kvasir/v1/prefix_manifest.pb.h"

namespace kvasir {
namespace {

constexpr uint32_t kManifestVersion = 1;

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

absl::Status CheckTokens(const v1::PrefixManifest& manifest) {
  const auto rows = static_cast<uint64_t>(manifest.tokens_size());
  if (rows == 0 || rows > core::kPrefixTokensMax || rows % kChunkTokens != 0) {
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

// The chain that the secret makes of the tokens. Errors: kDataLoss where it is not the manifest's.
absl::StatusOr<PrefixChain> ChainOf(const v1::PrefixManifest& manifest,
                                    const ChainHasher::Secret& secret) {
  KVASIR_ASSIGN_OR_RETURN(const ChainKey scope, KeyOf(manifest.scope(), "scope"));
  KVASIR_ASSIGN_OR_RETURN(const ChainKey last, KeyOf(manifest.last_key(), "last_key"));
  std::vector<TokenExtra> extras;
  for (const v1::TokenExtra& extra : manifest.extras()) {
    extras.push_back({extra.row(), extra.digest()});
  }
  KVASIR_ASSIGN_OR_RETURN(PrefixChain chain, PrefixChain::Create(secret, scope, std::move(extras)));
  chain.Append({manifest.tokens().data(), static_cast<size_t>(manifest.tokens_size())});
  if (chain.keys().back() != last) {
    return DataLoss("manifest.last_key does not follow from the tokens under this host's secret");
  }
  return chain;
}

absl::StatusOr<std::vector<core::StoredPrefix::Run>> RunsOf(const v1::PrefixManifest::Lane& lane,
                                                            uint64_t rows) {
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
  if (sum != rows) {
    return InvalidArgument("manifest.lanes has other rows than tokens: rows={} expected={}", sum,
                           rows);
  }
  return runs;
}

}  // namespace

std::string EncodeManifest(const core::Snapshot& snapshot, std::span<const TokenId> tokens,
                           std::span<const ManifestRun> runs, bool in_memory) {
  v1::PrefixManifest manifest;
  manifest.set_version(kManifestVersion);
  manifest.set_scope(Text(snapshot.chain->scope().ToBytes()));
  manifest.set_form(Text(snapshot.form.ToBytes()));
  manifest.set_last_key(Text(snapshot.chain->keys().back().ToBytes()));
  manifest.mutable_tokens()->Assign(tokens.begin(), tokens.end());
  for (const TokenExtra& extra : snapshot.chain->ExtrasOf(0, snapshot.rows)) {
    v1::TokenExtra* const out = manifest.add_extras();
    out->set_row(extra.row);
    out->set_digest(extra.bytes);
  }
  *manifest.mutable_model() = ToModelSpec(snapshot.model);
  manifest.mutable_model()->set_slots_per_block(snapshot.slots_per_block);
  manifest.set_model_fingerprint(Text(snapshot.model_fingerprint));
  manifest.set_retention(snapshot.retention);
  manifest.set_label(snapshot.label);
  manifest.mutable_lane_of_layer()->Assign(snapshot.lane_of_layer.begin(),
                                           snapshot.lane_of_layer.end());
  for (size_t lane = 0; lane < snapshot.lanes.size(); ++lane) manifest.add_lanes();
  for (const ManifestRun& run : runs) {
    v1::PrefixManifest::Run* const out =
        manifest.mutable_lanes(static_cast<int>(run.lane))->add_runs();
    out->set_digest(Text(run.digest));
    out->set_group_slots(run.group->geometry().slots);
    out->set_rows(run.rows);
    out->set_bytes(core::PlaneBytes(run.group->geometry()));
    if (!in_memory) continue;
    const Group& group = run.group->group();
    out->set_extent(group.extent->id());
    out->set_extent_bytes(group.extent->bytes());
    out->set_offset(group.offset);
  }
  return manifest.SerializeAsString();
}

absl::StatusOr<core::StoredPrefix> DecodeManifest(std::string_view bytes,
                                                  const ChainHasher::Secret& secret) {
  v1::PrefixManifest manifest;
  if (!manifest.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DataLoss("manifest is no message of its type: bytes={}", bytes.size());
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
  KVASIR_ASSIGN_OR_RETURN(facts.chain, ChainOf(manifest, secret));
  KVASIR_ASSIGN_OR_RETURN(facts.form, KeyOf(manifest.form(), "form"));
  facts.rows = static_cast<uint64_t>(manifest.tokens_size());
  prefix.tokens.assign(manifest.tokens().begin(), manifest.tokens().end());
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
    KVASIR_ASSIGN_OR_RETURN(auto runs, RunsOf(lane, facts.rows));
    prefix.lanes.push_back(std::move(runs));
  }
  return prefix;
}

}  // namespace kvasir
