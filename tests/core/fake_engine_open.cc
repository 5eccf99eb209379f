// FakeEngine: the ways to open a stream, and what is asked under a share.
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/tenant_verbs.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {

absl::StatusOr<FakeEngine::Stream> FakeEngine::Open(uint32_t model_id, const std::string& retention,
                                                    uint64_t prompt_rows) {
  KVASIR_ASSIGN_OR_RETURN(
      const Sequence* sequence,
      core_.OpenSequence(*session_, {model_id, retention, prompt_rows, "fake", 0, true, {}}));
  return StreamOf(*sequence);
}

absl::StatusOr<FakeEngine::Stream> FakeEngine::Resume(uint32_t model_id,
                                                      const std::string& retention,
                                                      const SnapshotId& snapshot,
                                                      const std::vector<uint32_t>& ids) {
  OpenRequest request{model_id, retention, 0, "fake", 0, true, snapshot};
  PrefixLoading loading;
  loading.gave_up = !waits_for_tiers;
  if (run_tiers) request.loading = &loading;
  KVASIR_ASSIGN_OR_RETURN(const Sequence* sequence, core_.OpenSequence(*session_, request));
  for (int attempt = 0; sequence == nullptr; ++attempt) {
    if (attempt == 4) return Internal("a saved sequence does not come up");
    run_tiers();
    KVASIR_ASSIGN_OR_RETURN(sequence, core_.OpenSequence(*session_, request));
  }
  Stream stream = StreamOf(*sequence);
  stream.rows = sequence->rows();
  stream.ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(stream.rows));
  return stream;
}

absl::StatusOr<FakeEngine::Stream> FakeEngine::Attach(OpenRequest request, const std::string& salt,
                                                      PrefixRequest prefix) {
  KVASIR_ASSIGN_OR_RETURN(const PrefixScopes scopes,
                          core_.ScopesOf(*session_, request.model_id, salt));
  KVASIR_ASSIGN_OR_RETURN(const PrefixKeys keys, HashPrefix(scopes, std::move(prefix)));
  request.prefix = &keys;
  request.reads_records = true;
  PrefixLoading loading;
  loading.gave_up = !waits_for_tiers;
  if (run_tiers) request.loading = &loading;
  KVASIR_ASSIGN_OR_RETURN(const Sequence* sequence, core_.OpenSequence(*session_, request));
  for (int attempt = 0; sequence == nullptr; ++attempt) {
    if (attempt == 4) return Internal("a prefix does not come up");
    run_tiers();
    KVASIR_ASSIGN_OR_RETURN(sequence, core_.OpenSequence(*session_, request));
  }
  Stream stream = StreamOf(*sequence);
  stream.rows = sequence->rows();
  stream.ids.assign(keys.tokens.begin(), keys.tokens.begin() + static_cast<ptrdiff_t>(stream.rows));
  return stream;
}

RetrieveAnswer FakeEngine::Retrieve(const Stream& stream, uint32_t layer, uint64_t mass_blocks,
                                    bool* asked, bool share) {
  if (share) {
    TenantVerbs verbs(core_, 0, 1);
    const auto answer =
        verbs.Retrieve(*session_, stream.slot, stream.uid, layer, mass_blocks, asked);
    if (answer) return *answer;
  }
  return core_.Retrieve(*session_, stream.slot, stream.uid, layer, mass_blocks, asked);
}

}  // namespace kvasir::core::testing
