// Leads a cluster through an upgrade that fails once, and one that is aborted, with the unmodified Go SDK.
//
// Reads CSS_URL, CSS_PROJECT_ID, CSS_AK, CSS_SK and CSS_CLUSTER_ID. The emulator must have been told to let the first
// upgrade fail once; `make check-clients` does that.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	css "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/css/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/css/v1/model"
)

const (
	agency    = "css_go_agency"
	limit     = time.Minute
	askEvery  = 100 * time.Millisecond
	clusterOK = "200"
)

var clusterID = os.Getenv("CSS_CLUSTER_ID")

func main() {
	client := connect(os.Getenv("CSS_SK"))
	check(idle(client), "the cluster is not idle")

	// An upgrade that fails and is retried.
	upgrade(client, "same", model.GetUpgradingTheKernelBodyUpgradeTypeEnum().SAME)
	failed := ended(client)
	check(*failed.Status == "FAILED", "not FAILED but "+*failed.Status)
	must(client.RetryUpgradeTask(&model.RetryUpgradeTaskRequest{ClusterId: clusterID, ActionId: *failed.Id}))
	done := ended(client)
	check(*done.Id == *failed.Id && *done.Status == "SUCCESS" && *done.ExecuteTimes == "2", "the retry ended "+*done.Status)
	check(*done.CompletedNodes == *done.TotalNodes, "not all nodes are done")
	check(idle(client), "SUCCESS, but the cluster is not idle")
	fmt.Println("an upgrade failed at", stepOf(failed), "and succeeded when retried")

	// An upgrade that is aborted while it runs.
	upgrade(client, "cross", model.GetUpgradingTheKernelBodyUpgradeTypeEnum().CROSS)
	abort := "abort"
	running := newest(client)
	must(client.RetryUpgradeTask(&model.RetryUpgradeTaskRequest{ClusterId: clusterID, ActionId: *running.Id, RetryMode: &abort}))
	aborted := ended(client)
	check(strings.HasSuffix(*aborted.Status, "FAILED"), "the abort ended "+*aborted.Status)
	fmt.Println("another one was aborted and is", *aborted.Status)

	// A page past the end, a query with characters that signers must encode, and errors.
	page := int32(1000)
	empty := must(client.UpgradeDetail(&model.UpgradeDetailRequest{ClusterId: clusterID, Offset: &page}))
	check(*empty.TotalSize == 2 && len(*empty.DetailList) == 0, "a page past the end is not empty")
	odd := "a b+c/d~ü&=%"
	refused(400, "CSS.0001", func() error {
		_, err := client.UpgradeDetail(&model.UpgradeDetailRequest{ClusterId: clusterID, ActionMode: &odd})
		return err
	})
	refused(400, "CSS.0082", func() error {
		_, err := client.RetryUpgradeTask(&model.RetryUpgradeTaskRequest{ClusterId: clusterID, ActionId: "no-such-task"})
		return err
	})
	refused(401, "APIGW.0301", func() error {
		_, err := connect("wrong").ShowClusterDetail(&model.ShowClusterDetailRequest{ClusterId: clusterID})
		return err
	})
	fmt.Println("errors are understood")
}

func connect(sk string) *css.CssClient {
	credentials, err := basic.NewCredentialsBuilder().
		WithAk(os.Getenv("CSS_AK")).WithSk(sk).WithProjectId(os.Getenv("CSS_PROJECT_ID")).SafeBuild()
	check(err == nil, fmt.Sprint(err))
	client, err := css.CssClientBuilder().
		WithEndpoints([]string{os.Getenv("CSS_URL")}).WithCredential(credentials).SafeBuild()
	check(err == nil, fmt.Sprint(err))
	return css.NewCssClient(client)
}

func upgrade(client *css.CssClient, kind string, typed model.UpgradingTheKernelBodyUpgradeType) {
	images := must(client.ListImages(&model.ListImagesRequest{ClusterId: clusterID, UpgradeType: kind}))
	check(len(*images.ImageInfoList) > 0, "no image is offered for "+kind)
	must(client.UpgradeCore(&model.UpgradeCoreRequest{ClusterId: clusterID, InstType: "all", Body: &model.UpgradingTheKernelBody{
		TargetImageId: *(*images.ImageInfoList)[0].Id,
		UpgradeType:   typed,
		Agency:        agency,
	}}))
	task := newest(client)
	check(*task.Status == "RUNNING" && *task.AgencyName == agency, "the new task is "+*task.Status)
	check(len(*task.CurrentNodeDetail) == 13, "there are not 13 sub-steps")
}

func newest(client *css.CssClient) model.GetUpgradeDetailInfo {
	details := must(client.UpgradeDetail(&model.UpgradeDetailRequest{ClusterId: clusterID}))
	check(len(*details.DetailList) > 0, "there is no task")
	return (*details.DetailList)[0]
}

func ended(client *css.CssClient) model.GetUpgradeDetailInfo {
	for until := time.Now().Add(limit); time.Now().Before(until); time.Sleep(askEvery) {
		if task := newest(client); *task.Status != "RUNNING" {
			return task
		}
	}
	check(false, "the task still runs after "+limit.String())
	panic("unreachable")
}

func idle(client *css.CssClient) bool {
	shown := must(client.ShowClusterDetail(&model.ShowClusterDetailRequest{ClusterId: clusterID}))
	for _, node := range *shown.Instances {
		check(*node.Status == clusterOK, *node.Name+" is "+*node.Status)
	}
	return *shown.Status == clusterOK && len(*shown.Actions) == 0
}

func stepOf(task model.GetUpgradeDetailInfo) string {
	for _, step := range *task.CurrentNodeDetail {
		if *step.Status == "FAILED" {
			return fmt.Sprintf("%d, %s", *step.Order, *step.Name)
		}
	}
	return "no sub-step"
}

func refused(status int, code string, call func() error) {
	var told *sdkerr.ServiceResponseError
	check(errors.As(call(), &told), "not refused with "+code)
	check(told.StatusCode == status && told.ErrorCode == code && told.RequestId != "", told.Error())
}

func must[T any](answer T, err error) T {
	check(err == nil, fmt.Sprint(err))
	return answer
}

func check(good bool, told string) {
	if !good {
		fmt.Fprintln(os.Stderr, "go client:", told)
		os.Exit(1)
	}
}
