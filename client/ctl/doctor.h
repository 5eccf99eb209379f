// doctor: looks at a host and its daemon and says for each point whether it is well and what to do.
#ifndef KVASIR_CLIENT_CTL_DOCTOR_H_
#define KVASIR_CLIENT_CTL_DOCTOR_H_

#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "client/ctl/host_facts.h"
#include "kvasir/v1/admin.pb.h"

namespace kvasir::ctl {

enum class Health {
  kOk,
  kWarn,  // works, not as well as it could
  kFail,  // a daemon cannot start or cannot be reached here
};

struct Diagnosis {
  Health health = Health::kOk;
  std::string name;     // "locked memory"
  std::string finding;  // what is so, with figures
  std::string advice;   // what to do; "" where nothing is to be done
};

// What the daemon says; errors are findings too.
struct DaemonFacts {
  absl::StatusOr<v1::GetStatsResponse> stats;
  absl::StatusOr<v1::GetHostResponse> host;
};

// One entry a point, in a fixed order, GPUs last. Pure. Sizes are judged by the daemon's pool where
// it answers, else by the default pool of 1 GiB.
std::vector<Diagnosis> Diagnose(const HostFacts& facts, const DaemonFacts& daemon);

// Only of the GPUs: one entry each where CUDA shows them; else one named "GPU" that says why not.
std::vector<Diagnosis> DiagnoseGpus(const GpuFacts& facts);

// The worst of all.
Health WorstOf(const std::vector<Diagnosis>& list);

std::string RenderDiagnosis(const std::vector<Diagnosis>& list, bool color);
// {"checks": [{"health": "ok"|"warn"|"fail", "name", "finding", "advice"}], "worst": ...}
std::string RenderDiagnosisJson(const std::vector<Diagnosis>& list);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_DOCTOR_H_
