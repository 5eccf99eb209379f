// An engine that does as much as it can until it is killed: opens sequences under several policies,
// writes rows through the views, truncates, closes. One byte on standard output for each thing
// done.
//
//   test_engine CONTROL_SOCKET DATA_SOCKET SEED [UID|- [asked|device]]
// With "device" its rows lie in the pool "gpu0", of host memory. With UID (as root) it becomes that
// user first. With "asked" its policies are those that ask for something: mass, queries,
// selections, lookups. Exit code 3: the daemon refused something.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

constexpr uint32_t kQueryHeads = 4;

const std::vector<std::string>& Policies(bool asked, bool on_device) {
  static const std::vector<std::string> scored = {
      "h2o:hh_size=12,recent_size=8,evict_interval=4",
      "h2o:hh_size=40,recent_size=20,evict_interval=16,decay=0.9,heads=shared",
      "snapkv:window_size=8,max_capacity_prompt=40",
      "keydiff:max_capacity=40,recent_size=8",
      "gemfilter:filter_layer=1,topk=20",
      "infllm:n_init=4,n_local=24,block_size=8,topk=2,repr_topk=2,max_cached_block=3,"
      "exc_block_size=8,cache_strategy=lru-s"};
  if (asked) return scored;
  static const std::vector<std::string> copied = {
      "full", "streamingllm:start_size=4,recent_size=20,positions=original",
      "sepllm:form=static,init_cache_size=3,local_size=24",
      "sepllm:form=static,init_cache_size=2,local_size=16/40"};
  if (on_device) return copied;
  static const std::vector<std::string> policies = {
      "full", "streamingllm:start_size=4,recent_size=20",
      "sepllm:form=static,init_cache_size=3,local_size=24",
      "sepllm:form=static,init_cache_size=2,local_size=16/40"};
  return policies;
}

[[noreturn]] void Fail(const absl::Status& status) {
  fmt::print(stderr, "test_engine: {}\n", MessageOf(status));
  std::exit(3);
}

void Tick() {
  const char byte = '.';
  if (::write(STDOUT_FILENO, &byte, 1) != 1) std::exit(0);  // nobody watches any more
}

// Whatever the step's policy asks for.
void Report(const StepView& step, const ModelSpec& spec, std::mt19937_64& random) {
  for (size_t layer = 0; layer < step.layers.size(); ++layer) {
    const LayerView& view = step.layers[layer];
    for (uint64_t row = step.row; row < step.row + step.count; ++row) {
      float* const query = view.queries.Of(row);
      for (uint32_t i = 0; query != nullptr && i < view.queries.row_floats; ++i) {
        query[i] = static_cast<float>(random() % 100) * 0.01F;
      }
      if (view.mass.recent == nullptr) continue;
      const uint32_t heads = view.mass.by_query_head ? kQueryHeads : spec.layers[layer].kv_heads;
      for (uint32_t head = 0; head < heads; ++head) {
        for (uint64_t i = 0; i < view.mass.kept_rows; ++i) {
          view.mass.kept[head * view.mass.kept_rows + i] += 0.01F;
        }
        for (uint64_t p = view.WindowFirst(row); p <= row; ++p) {
          view.mass.recent[head * view.mass.recent_rows + p - view.recent_base] += 0.01F;
        }
      }
    }
  }
}

// False where memory was short: the sequence is closed then.
bool LookUp(Sequence& sequence, const ModelSpec& spec, std::mt19937_64& random) {
  for (uint32_t layer = 0; sequence.retrieves() && layer < spec.layers.size(); ++layer) {
    std::vector<float> query(kQueryHeads * spec.layers[layer].k_head_dim);
    for (float& each : query) each = static_cast<float>(random() % 100) * 0.01F;
    const auto blocks = sequence.Retrieve(layer, query, {});
    if (blocks.ok()) continue;
    if (blocks.status().code() != absl::StatusCode::kResourceExhausted) Fail(blocks.status());
    (void)sequence.Close();
    return false;
  }
  return true;
}

void Select(Sequence& sequence, const ModelSpec& spec) {
  const LayerSpec& layer = spec.layers[*sequence.filter_layer()];
  const std::vector<float> query(layer.kv_heads * layer.k_head_dim, 0.5F);
  const auto rows = sequence.SelectRows(query);
  // A second time is refused.
  if (!rows.ok() && rows.status().code() != absl::StatusCode::kFailedPrecondition) {
    Fail(rows.status());
  }
}

void Step(Sequence& sequence, const ModelSpec& spec, std::mt19937_64& random) {
  const absl::StatusOr<StepView> step = sequence.Begin(1 + static_cast<uint32_t>(random() % 24));
  if (!step.ok()) {
    if (step.status().code() != absl::StatusCode::kResourceExhausted) Fail(step.status());
    (void)sequence.Close();
    return;
  }
  WriteTestRows(*step, spec);
  Report(*step, spec, random);
  if (!LookUp(sequence, spec, random)) return;
  std::vector<uint32_t> ids(step->count);
  for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
  const absl::Status committed = sequence.Commit(ids);
  if (!committed.ok()) Fail(committed);
}

[[noreturn]] void Work(const ConnectOptions& options, uint64_t seed, bool asked) {
  std::mt19937_64 random(seed);
  ModelSpec spec = TinySpec(2);
  if (!options.devices.empty()) spec.pool = "gpu0";
  for (LayerSpec& layer : spec.layers) layer.query_heads = kQueryHeads;
  const std::vector<std::string>& policies = Policies(asked, !options.devices.empty());
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
  if (!session.ok()) Fail(session.status());
  Tick();
  const absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(spec);
  if (!model.ok()) Fail(model.status());
  Tick();
  std::vector<Sequence> sequences;
  for (;;) {
    if (sequences.size() < 4) {
      absl::StatusOr<Sequence> opened =
          (*session)->OpenSequence({*model, policies[random() % policies.size()], 60, "crash"});
      if (!opened.ok()) Fail(opened.status());
      sequences.push_back(*std::move(opened));
    }
    const size_t at = random() % sequences.size();
    Sequence& sequence = sequences[at];
    if (sequence.rows() > 400) {
      sequences.erase(sequences.begin() + static_cast<ptrdiff_t>(at));
    } else if (sequence.filter_layer() && sequence.rows() > 100 && random() % 8 == 0) {
      Select(sequence, spec);
    } else if (random() % 16 == 0 && sequence.rows() > 0) {
      (void)sequence.Truncate(sequence.rows() - 1);  // may lie below the floor
    } else {
      Step(sequence, spec, random);
      std::erase_if(sequences, [](const Sequence& each) { return each.rows() == 0; });
    }
    Tick();
  }
}

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  if (argc > 4 && std::string(argv[4]) != "-") {
    const auto uid = static_cast<uid_t>(std::strtoul(argv[4], nullptr, 10));
    if (::setgid(uid) != 0 || ::setuid(uid) != 0) return 2;
  }
  kvasir::ConnectOptions options;
  options.control_socket = argv[1];
  options.data_socket = argv[2];
  const std::string what = argc > 5 ? argv[5] : "";
  kvasir::device::HostDeviceOptions device;
  device.uuid = "host-gpu0";
  const auto opened = kvasir::device::HostDevice::Create(device);
  if (!opened.ok()) return 2;
  if (what == "device") options.devices = {opened->get()};
  kvasir::testing::Work(options, std::strtoull(argv[3], nullptr, 10), what == "asked");
}
