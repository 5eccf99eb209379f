#include "tests/support/tier_daemon.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/eventually.h"
#include "tests/support/raw_client.h"
#include "tests/tier/tier_blocks.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

// Of each row a number that follows from all tokens up to it.
std::vector<uint64_t> ChainOf(const std::vector<uint32_t>& tokens) {
  std::vector<uint64_t> chain;
  uint64_t last = 1;
  for (const uint32_t token : tokens) chain.push_back(last = Mix(last * 1000 + token));
  return chain;
}

// The elements of K (plane 0) or V (plane 1) of a row.
std::vector<uint16_t> RowOf(uint64_t link, uint32_t layer, uint32_t plane, uint32_t elements) {
  std::vector<uint16_t> row(elements);
  for (uint32_t e = 0; e < elements; ++e) {
    row[e] = static_cast<uint16_t>(Mix(link + (layer * 2 + plane) * 1000 + e) & 0x3BFF);
  }
  return row;
}

uint32_t ElementsOf(const LayerSpec& layer, uint32_t plane) {
  return layer.kv_heads * (plane == 0 ? layer.k_head_dim : layer.v_head_dim);
}

absl::Status CheckRow(const std::byte* at, uint64_t row, uint64_t link, uint32_t layer,
                      uint32_t plane, uint32_t elements) {
  const std::vector<uint16_t> wanted = RowOf(link, layer, plane, elements);
  if (std::memcmp(at, wanted.data(), wanted.size() * sizeof(uint16_t)) == 0) {
    return absl::OkStatus();
  }
  return DataLoss("wrong bytes: row={} layer={} plane={}", row, layer, plane);
}

// The rows below `rows` are as they were written, none is there twice, and all of them are, or at
// least one.
absl::Status CheckLayer(const LayerView& view, uint64_t rows, bool all,
                        const std::vector<uint32_t>& tokens, const std::vector<uint64_t>& chain,
                        uint32_t layer, const LayerSpec& shape) {
  std::vector<uint32_t> seen(rows);
  for (const KeptRunView& run : view.kept) {
    for (uint32_t i = 0; i < run.rows; ++i) {
      const uint32_t row = run.positions[i];
      if (row >= rows || run.tokens[i] != tokens[row]) {
        return DataLoss("wrong row: row={} token={} rows={}", row, run.tokens[i], rows);
      }
      ++seen[row];
      KVASIR_RETURN_IF_ERROR(CheckRow(run.k + uint64_t{i} * run.k_stride, row, chain[row], layer, 0,
                                      ElementsOf(shape, 0)));
      KVASIR_RETURN_IF_ERROR(CheckRow(run.v + uint64_t{i} * run.v_stride, row, chain[row], layer, 1,
                                      ElementsOf(shape, 1)));
    }
  }
  for (uint64_t row = view.recent_first; row < rows; ++row) {
    ++seen[row];
    KVASIR_RETURN_IF_ERROR(
        CheckRow(view.KeyOf(row), row, chain[row], layer, 0, ElementsOf(shape, 0)));
    KVASIR_RETURN_IF_ERROR(
        CheckRow(view.ValueOf(row), row, chain[row], layer, 1, ElementsOf(shape, 1)));
  }
  if (!all && std::accumulate(seen.begin(), seen.end(), uint64_t{0}) == 0) {
    return DataLoss("no row is there: rows={} layer={}", rows, layer);
  }
  const auto wrong =
      std::find_if(seen.begin(), seen.end(), [&](uint32_t n) { return n > 1 || (all && n == 0); });
  if (wrong == seen.end()) return absl::OkStatus();
  return DataLoss("a row is there not once: row={} times={}", wrong - seen.begin(), *wrong);
}

void WriteRows(const StepView& step, const std::vector<uint64_t>& chain, const ModelSpec& spec) {
  for (uint32_t layer = 0; layer < step.layers.size(); ++layer) {
    for (uint64_t row = step.row; row < step.row + step.count; ++row) {
      for (const uint32_t plane : {0U, 1U}) {
        const std::vector<uint16_t> elements =
            RowOf(chain[row], layer, plane, ElementsOf(spec.layers[layer], plane));
        std::byte* const at =
            plane == 0 ? step.layers[layer].KeyOf(row) : step.layers[layer].ValueOf(row);
        std::memcpy(at, elements.data(), elements.size() * sizeof(uint16_t));
      }
    }
  }
}

}  // namespace

std::vector<uint32_t> PromptOf(uint64_t seed, size_t rows) {
  std::vector<uint32_t> tokens;
  for (size_t row = 0; row < rows; ++row) {
    tokens.push_back(static_cast<uint32_t>(3 + Mix(Mix(seed + 1) + row) % 900));
  }
  return tokens;
}

absl::StatusOr<TierEngine> TierEngine::Connect(const Config& config, const ModelSpec& spec,
                                               std::chrono::milliseconds deadline) {
  ConnectOptions options;
  options.control_socket = config.server.control_socket;
  options.data_socket = config.server.data_socket;
  options.deadline = deadline;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Connect(options));
  KVASIR_ASSIGN_OR_RETURN(ModelHandle model, session->RegisterModel(spec));
  return TierEngine(std::move(session), std::move(model), spec);
}

absl::StatusOr<Sequence> TierEngine::Attach(const std::vector<uint32_t>& tokens) {
  OpenOptions options;
  options.model = model_;
  options.retention = retention_;
  options.prefix = PrefixOptions{};
  options.prefix->tokens = tokens;
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session_->OpenSequence(options));
  KVASIR_RETURN_IF_ERROR(Check(sequence, tokens));
  return sequence;
}

absl::Status TierEngine::Check(Sequence& sequence, const std::vector<uint32_t>& tokens) const {
  const uint64_t rows = sequence.rows();
  if (rows == 0) return absl::OkStatus();
  if (rows > tokens.size()) return DataLoss("more rows than tokens: rows={}", rows);
  KVASIR_ASSIGN_OR_RETURN(const StepView step, sequence.Begin(1));
  const std::vector<uint64_t> chain = ChainOf(tokens);
  for (uint32_t layer = 0; layer < spec_.layers.size(); ++layer) {
    KVASIR_RETURN_IF_ERROR(CheckLayer(step.layers[layer], rows, retention_ == "full", tokens, chain,
                                      layer, spec_.layers[layer]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TierEngine::Save(const std::vector<uint32_t>& tokens) {
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Written(tokens));
  KVASIR_ASSIGN_OR_RETURN(const Snapshot snapshot, sequence.Save());
  return snapshot.id;
}

absl::StatusOr<uint64_t> TierEngine::ResumedRows(const std::string& snapshot,
                                                 const std::vector<uint32_t>& tokens) {
  OpenOptions options;
  options.model = model_;
  options.snapshot = snapshot;
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session_->OpenSequence(options));
  KVASIR_RETURN_IF_ERROR(Check(sequence, tokens));
  return sequence.rows();
}

absl::StatusOr<uint64_t> TierEngine::AttachedRows(const std::vector<uint32_t>& tokens) {
  KVASIR_ASSIGN_OR_RETURN(const Sequence sequence, Attach(tokens));
  return sequence.rows();
}

absl::Status TierEngine::Publish(const std::vector<uint32_t>& tokens) {
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Written(tokens));
  return sequence.PublishPrefix().status();
}

absl::StatusOr<Sequence> TierEngine::Written(const std::vector<uint32_t>& tokens) {
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Attach(tokens));
  const std::vector<uint64_t> chain = ChainOf(tokens);
  while (sequence.rows() < tokens.size()) {
    KVASIR_ASSIGN_OR_RETURN(const StepView step,
                            sequence.Begin(static_cast<uint32_t>(tokens.size() - sequence.rows())));
    WriteRows(step, chain, spec_);
    KVASIR_RETURN_IF_ERROR(sequence.Commit(std::span(tokens).subspan(step.row, step.count)));
  }
  return sequence;
}

bool TierDaemon::Start() {
  const bool started = process_.Start(config_);
  if (!started) {
    ADD_FAILURE() << "kvasird did not start: "
                  << (process_.has_process() ? process_.process().ReadErrors() : "");
  }
  return started;
}

std::string TierDaemon::StartAndFail() {
  EXPECT_FALSE(process_.Start(config_));
  if (!process_.has_process()) return "";
  process_.process().Signal(SIGTERM);  // where it came up after all
  std::string said = process_.process().ReadErrors();
  EXPECT_EQ(process_.process().Wait(), 1) << said;
  return said;
}

std::string TierDaemon::Stop() {
  process_.process().Signal(SIGTERM);
  // Read here, so that the next Start() does not take it for its own.
  EXPECT_THAT(process_.NextNotification(), HasSubstr("STOPPING=1"));
  std::string said = process_.process().ReadErrors();
  EXPECT_EQ(process_.process().Wait(), 0) << said;
  return said;
}

void TierDaemon::Kill() {
  process_.process().Signal(SIGKILL);
  EXPECT_EQ(process_.process().Wait(), -SIGKILL);
}

absl::StatusOr<TierEngine> TierDaemon::Connect(uint32_t layers,
                                               std::chrono::milliseconds deadline) const {
  return TierEngine::Connect(config_, TinySpec(layers), deadline);
}

absl::Status TierDaemon::Drain() const {
  v1::DrainPrefixesResponse response;
  const grpc::Status status =
      RawCalls(config_.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::DrainPrefixes, v1::DrainPrefixesRequest(), &response);
  if (!status.ok()) return Unavailable("DrainPrefixes failed: {}", status.error_message());
  if (response.not_stored() == 0) return absl::OkStatus();
  return ResourceExhausted("prefixes were not stored: count={}", response.not_stored());
}

v1::TierInfo TierDaemon::Tier() const {
  v1::ListTiersResponse response;
  const grpc::Status status =
      RawCalls(config_.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::ListTiers, v1::ListTiersRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.tiers_size(), 1);
  return response.tiers_size() > 0 ? response.tiers(0) : v1::TierInfo();
}

void TierDaemon::Drop() const {
  v1::DropPrefixesResponse response;
  const grpc::Status status =
      RawCalls(config_.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

size_t TierDaemon::PrefixesIn(const std::string& place) const {
  v1::ListPrefixesResponse response;
  const grpc::Status status =
      RawCalls(config_.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::ListPrefixes, v1::ListPrefixesRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return static_cast<size_t>(
      std::count_if(response.prefixes().begin(), response.prefixes().end(),
                    [&](const v1::PrefixInfo& prefix) { return prefix.place() == place; }));
}

v1::GetStatsResponse TierDaemon::Stats() const {
  v1::GetStatsResponse response;
  const grpc::Status status =
      RawCalls(config_.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

void TierDaemon::ExpectNothingLeft() const {
  const auto sessions = [this] {
    const v1::GetStatsResponse stats = Stats();
    return std::accumulate(
        stats.tenants().begin(), stats.tenants().end(), 0U,
        [](uint32_t sum, const auto& tenant) { return sum + tenant.sessions(); });
  };
  EXPECT_TRUE(Eventually([&] { return sessions() == 0; })) << Stats().ShortDebugString();
  // A load or a store that is under way may bring something after the first drop.
  EXPECT_TRUE(Eventually([&] {
    Drop();
    const v1::GetStatsResponse stats = Stats();
    return stats.held_bytes() == 0 && stats.charged_bytes() == 0 &&
           stats.pool_free_bytes() == stats.pool_bytes();
  })) << Stats().ShortDebugString();
  const v1::GetStatsResponse stats = Stats();
  for (const v1::TenantStats& tenant : stats.tenants()) {
    EXPECT_EQ(tenant.sequences() + tenant.snapshots() + tenant.prefixes(), 0U) << tenant.tenant();
    EXPECT_EQ(tenant.host().held_bytes() + tenant.host().charged_bytes(), 0U) << tenant.tenant();
    EXPECT_EQ(tenant.violations(), 0U) << tenant.tenant();
  }
  if (config_.tier.disk_path.empty()) return;
  EXPECT_TRUE(Eventually([&] { return Tier().held_bytes() == 0; })) << Tier().ShortDebugString();
}

Config TierDaemonTest::PlainConfig() const {
  Config config = MakeConfig();
  config.server.log_level = "warn";
  config.admin.uids = {::geteuid()};
  config.tier.stop_drain_ms = 3'600'000;  // so that a drain without an end is a hang
  config.tier.load_wait_ms = 600'000;     // on a busy machine too
  return config;
}

Config TierDaemonTest::DiskConfig() const {
  Config config = PlainConfig();
  config.tier.disk_path = disk_path();
  config.tier.disk_bytes = 64 * kMiB;
  config.tenants[0].disk_bytes = config.tier.disk_bytes;
  return config;
}

}  // namespace kvasir::testing
