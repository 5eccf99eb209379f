#include "tests/support/daemon_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/log.h"

#include <stdlib.h>

namespace kvasir::testing {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "kvasir-XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // a leftover folder harms no test
  std::filesystem::remove_all(path_, ignored);
}

Config DaemonFixture::MakeConfig() const {
  Config config;
  config.server.control_socket = folder_.path() + "/control.sock";
  config.server.data_socket = folder_.path() + "/data.sock";
  config.server.ring_threads = 2;  // on machines of two processors as well
  config.memory.pool_bytes = 64 * kMiB;
  config.memory.extent_bytes = 4 * kMiB;
  config.memory.recent_extent_bytes = kMiB;
  config.memory.ready_bytes = 8 * kMiB;
  config.memory.lock = Config::Memory::Lock::kOff;
  config.memory.pressure = Config::Memory::Pressure::kOff;  // the host's is no matter of tests
  config.memory.handover = Config::Memory::Handover::kOff;
  config.limits.table_arena_bytes = 4 * kMiB;
  config.limits.rows_max = 1 << 16;
  Config::Tenant tenant;
  tenant.name = "test";
  tenant.uids = {::geteuid()};
  tenant.limit_bytes = config.memory.pool_bytes;
  tenant.retention = "full";
  config.tenants = {tenant};
  return config;
}

void DaemonFixture::SetUp() { StartServer(MakeConfig()); }

void DaemonFixture::StartServer(const Config& config) {
  server_.reset();
  (void)SetUpLog("error", LogFormat::kText);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, {});
  ASSERT_TRUE(server.ok()) << MessageOf(server.status());
  server_ = *std::move(server);
}

void DaemonFixture::TearDown() {
  if (server_) ExpectNothingCharged();
}

ConnectOptions DaemonFixture::MakeConnectOptions() const {
  ConnectOptions options;
  options.control_socket = folder_.path() + "/control.sock";
  options.data_socket = folder_.path() + "/data.sock";
  return options;
}

std::unique_ptr<Session> DaemonFixture::Connect() {
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(MakeConnectOptions());
  EXPECT_TRUE(session.ok()) << MessageOf(session.status());
  return session.ok() ? *std::move(session) : nullptr;
}

uint64_t DaemonFixture::HeldBytes() { return server_->Snapshot().held_bytes; }

void DaemonFixture::ExpectNothingCharged() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  SharedCore& shared = server_->shared_for_test();
  for (;;) {
    const StatsSnapshot snapshot = server_->Snapshot();
    if (snapshot.charged_bytes == 0 && snapshot.tenants[0].sessions == 0) break;
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "still charged: bytes=" << snapshot.charged_bytes
                    << " held=" << snapshot.held_bytes
                    << " sessions=" << snapshot.tenants[0].sessions;
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the daemon's own threads work
  }
  MutexLock lock(shared.mutex);
  const absl::Status conserved = shared.core.CheckConservation();
  EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
}

ModelSpec TinySpec(uint32_t layers) {
  ModelSpec spec;
  spec.name = "tiny";
  spec.layers.assign(layers, LayerSpec{2, 16, 16, 0});
  spec.rope = RopeStyle::kInterleaved;
  spec.rope_dims = 16;
  spec.vocabulary_size = 1000;
  spec.separator_token_ids = {1, 2};
  spec.slots_per_block = 16;
  spec.weights_digest = std::string(32, 'w');
  return spec;
}

uint16_t TestElement(uint64_t row, uint32_t layer, uint32_t plane, uint32_t e) {
  return static_cast<uint16_t>((row * 31 + layer * 7 + plane * 3 + e) & 0x3BFF);
}

void WriteTestRows(const StepView& step, const ModelSpec& spec) {
  for (uint32_t layer = 0; layer < step.layers.size(); ++layer) {
    const LayerView& view = step.layers[layer];
    const LayerSpec& shape = spec.layers[layer];
    for (uint64_t row = step.row; row < step.row + step.count; ++row) {
      for (uint32_t plane = 0; plane < 2; ++plane) {
        std::byte* at = plane == 0 ? view.KeyOf(row) : view.ValueOf(row);
        const uint32_t elements =
            shape.kv_heads * (plane == 0 ? shape.k_head_dim : shape.v_head_dim);
        for (uint32_t e = 0; e < elements; ++e) {
          const uint16_t value = TestElement(row, layer, plane, e);
          std::memcpy(at + 2 * e, &value, 2);
        }
      }
    }
  }
}

namespace {

void ExpectTestRow(const std::byte* data, uint64_t row, uint32_t layer, uint32_t plane,
                   uint32_t elements) {
  for (uint32_t e = 0; e < elements; ++e) {
    uint16_t value = 0;
    std::memcpy(&value, data + 2 * e, 2);
    ASSERT_EQ(value, TestElement(row, layer, plane, e))
        << "row " << row << " layer " << layer << " plane " << plane << " element " << e;
  }
}

}  // namespace

std::vector<uint64_t> VisibleRows(const LayerView& view, uint64_t row, uint32_t layer,
                                  const ModelSpec& spec) {
  const uint32_t k_elements = spec.layers[layer].kv_heads * spec.layers[layer].k_head_dim;
  const uint32_t v_elements = spec.layers[layer].kv_heads * spec.layers[layer].v_head_dim;
  std::vector<uint64_t> rows;
  for (const KeptRunView& run : view.kept) {
    for (uint32_t i = 0; i < run.rows; ++i) {
      rows.push_back(run.positions[i]);
      ExpectTestRow(run.k + uint64_t{i} * run.k_stride, run.positions[i], layer, 0, k_elements);
      ExpectTestRow(run.v + uint64_t{i} * run.v_stride, run.positions[i], layer, 1, v_elements);
    }
  }
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t p : view.sticky) {
    if (p < low && p <= row) rows.push_back(p);
  }
  for (uint64_t p = low; p <= row; ++p) {
    rows.push_back(p);
    ExpectTestRow(view.KeyOf(p), p, layer, 0, k_elements);
    ExpectTestRow(view.ValueOf(p), p, layer, 1, v_elements);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace kvasir::testing
